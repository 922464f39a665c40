import type { MultipartStore } from '../contracts/multipart-store.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import type { Logger } from '../kernel/log.ts';

/** Where an S3 server is and who asks. What is absent is taken from the cluster's `s3.*` keys, then from AWS' own chain. */
export interface S3Access {
  /** URL of an S3-compatible server. */
  readonly endpoint?: string;
  readonly region?: string;
  /** The bucket in the path rather than in the host name. */
  readonly pathStyle?: boolean;
  readonly credentials?: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly sessionToken?: string;
  };
}

/** Opens buckets for sinks. The process decides how, so that secrets stay out of programs and job graphs. */
export interface S3Provider {
  readonly log: Logger;
  open(bucket: string, access: S3Access): Promise<MultipartStore>;
}

let installed: S3Provider | undefined;

/** The library's entry hands it in, as it does the built-in connectors. */
export function installS3(provider: S3Provider): void {
  installed = provider;
}

export function s3Provider(): S3Provider {
  if (installed === undefined) {
    throw new MillraceError('INTERNAL', 'nothing that opens S3 buckets is installed', {
      hint: "Import from 'millrace', not from a file inside the package.",
    });
  }
  return installed;
}

export interface S3Folder {
  readonly bucket: string;
  /** Ends in a slash, or is empty. */
  readonly prefix: string;
}

const HINT = 'Write s3://bucket/prefix; endpoint, region and keys are the s3.* keys of the cluster.';

/** @throws InvalidArgumentError; whatever looks like a secret in the URI is not repeated. */
export function parseS3Uri(uri: string): S3Folder {
  const shown = JSON.stringify(uri.replace(/\/\/[^/]*@/, '//***@'));
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([^?#]*))?$/.exec(uri);
  if (match === null) throw new InvalidArgumentError(`${shown} names no folder of a bucket`, { hint: HINT });
  const prefix = (match[2] ?? '').replace(/^\/+|\/+$/g, '');
  if (
    !/^[A-Za-z0-9._/-]*$/.test(prefix) ||
    prefix.split('/').some((part) => /^\.{1,2}$/.test(part)) ||
    /\/\//.test(prefix)
  )
    throw new InvalidArgumentError(`the prefix in ${shown} may hold A-Z a-z 0-9 . _ / - alone, and no part . or ..`);
  if (prefix.length > 300) throw new InvalidArgumentError(`the prefix of ${prefix.length} characters is over 300`);
  return { bucket: match[1] ?? '', prefix: prefix === '' ? '' : `${prefix}/` };
}
