import { readFileSync } from 'node:fs';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { asError, MillraceError } from '../kernel/errors.ts';
import type { RpcTls } from '../rpc/tls.ts';
import type { Configuration } from './config/options.ts';

/** What the internal ports of a process speak TLS with. PEM texts: plain data, so that slots' threads get it too. */
export interface InternalTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Reads `security.ssl.internal.*`. Throws `CONFIGURATION` for files that cannot be read or do not go together. */
export function internalTls(c: Configuration): InternalTls | undefined {
  if (!c.internalTls) return undefined;
  const tls = {
    ca: read('security.ssl.internal.ca-file', c.internalCaFile),
    cert: read('security.ssl.internal.cert-file', c.internalCertFile),
    key: read('security.ssl.internal.key-file', c.internalKeyFile),
  };
  check(tls);
  return tls;
}

export function rpcTls(tls: InternalTls | undefined): { readonly tls?: RpcTls } {
  if (tls === undefined) return {};
  return { tls: { ca: Buffer.from(tls.ca), cert: Buffer.from(tls.cert), key: Buffer.from(tls.key) } };
}

function read(key: string, file: string | undefined): string {
  try {
    return readFileSync(file ?? '', 'utf8');
  } catch (error) {
    throw new MillraceError('CONFIGURATION', `${key}: ${asError(error).message}`, { cause: error });
  }
}

/** Found at the start, not with the first connection that fails. */
function check({ ca, cert, key }: InternalTls): void {
  let own: X509Certificate;
  try {
    own = new X509Certificate(cert);
    new X509Certificate(ca);
    createPrivateKey(key);
  } catch (error) {
    throw new MillraceError(
      'CONFIGURATION',
      `security.ssl.internal: a file is not PEM as it should be: ${asError(error).message}`,
      {
        cause: error,
      },
    );
  }
  if (!own.checkPrivateKey(createPrivateKey(key))) {
    throw new MillraceError('CONFIGURATION', 'security.ssl.internal: cert-file and key-file do not belong together');
  }
}
