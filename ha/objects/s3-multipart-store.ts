import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListPartsCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import type { MultipartStore, UploadedPart, UploadName } from '../../src/contracts/multipart-store.ts';
import { asError, isMillraceError, MillraceError } from '../../src/kernel/errors.ts';
import { checkObjectKey, checkObjectPrefix } from './check-object-key.ts';
import { S3ObjectStore, type S3ObjectStoreDeps, type S3ObjectStoreOptions } from './s3-object-store.ts';

/** A server puts a large object together while it is completed; this much is allowed for on top. */
const COMPLETE_BYTES = 64 * 1024 * 1024;

/** Multipart uploads of a bucket, in the calls that AWS, MinIO, Ceph and SeaweedFS all have. */
export class S3MultipartStore implements MultipartStore {
  readonly description: string;

  private constructor(
    private readonly objects: S3ObjectStore,
    private readonly bucket: string,
  ) {
    this.description = objects.description;
  }

  /** Connects when first called. Does not sweep the bucket: it is the user's. */
  static open(deps: S3ObjectStoreDeps, options: Omit<S3ObjectStoreOptions, 'prefix'>): S3MultipartStore {
    return new S3MultipartStore(new S3ObjectStore(deps, options), options.bucket);
  }

  async create(key: string): Promise<string> {
    checkObjectKey(key);
    const command = new CreateMultipartUploadCommand(this.objects.at(key));
    const { UploadId } = await this.send('begin the upload of', key, 0, (s) => this.client.send(command, s));
    if (UploadId === undefined) throw new MillraceError('INTERNAL', `${this.description} gave no upload id for ${key}`);
    return UploadId;
  }

  async uploadPart({ key, uploadId }: UploadName, number: number, bytes: Uint8Array): Promise<UploadedPart> {
    // A view, not a copy. A Buffer: from streams the SDK makes chunks that not all servers take.
    const Body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const command = new UploadPartCommand({
      ...this.objects.at(key),
      UploadId: uploadId,
      PartNumber: number,
      Body,
      ContentLength: Body.length,
    });
    const what = `upload part ${number} of`;
    const { ETag } = await this.send(what, key, Body.length, (s) => this.client.send(command, s));
    if (ETag === undefined) throw new MillraceError('INTERNAL', `${this.description} gave no ETag for ${key}`);
    return { number, etag: ETag };
  }

  async complete({ key, uploadId }: UploadName, parts: readonly UploadedPart[]): Promise<'completed' | 'gone'> {
    const Parts = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: etag }));
    const command = new CompleteMultipartUploadCommand({
      ...this.objects.at(key),
      UploadId: uploadId,
      MultipartUpload: { Parts },
    });
    try {
      await this.send('complete', key, COMPLETE_BYTES, (s) => this.client.send(command, s));
      return 'completed';
    } catch (error) {
      if (isNoSuchUpload(error) || (await this.isGone({ key, uploadId }))) return 'gone';
      throw error;
    }
  }

  /**
   * Ceph answers the completion of an aborted upload with 500, "already in progress", as if another were under
   * way. Asked for the upload's parts it says plainly that there is none.
   */
  private async isGone({ key, uploadId }: UploadName): Promise<boolean> {
    const command = new ListPartsCommand({ ...this.objects.at(key), UploadId: uploadId, MaxParts: 1 });
    try {
      await this.send('look for the upload of', key, 0, (s) => this.client.send(command, s));
      return false;
    } catch (error) {
      // Ceph has another word for it here. Anything else: the caller learns what the completion said.
      return isNoSuchUpload(error) || isMillraceError(error, 'NOT_FOUND');
    }
  }

  async abort({ key, uploadId }: UploadName): Promise<void> {
    await this.objects.abortUpload(key, uploadId);
  }

  async *list(prefix: string): AsyncIterable<UploadName> {
    checkObjectPrefix(prefix);
    let after: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } | undefined = {};
    while (after !== undefined) {
      const command: ListMultipartUploadsCommand = new ListMultipartUploadsCommand({
        Bucket: this.bucket,
        Prefix: prefix,
        ...after,
      });
      const answer = await this.send('list uploads of', prefix, 0, (s) => this.client.send(command, s));
      for (const { Key, UploadId } of answer.Uploads ?? [])
        if (Key !== undefined && UploadId !== undefined) yield { key: Key, uploadId: UploadId };
      const more = answer.IsTruncated === true && answer.NextKeyMarker !== undefined;
      after = more ? { KeyMarker: answer.NextKeyMarker, UploadIdMarker: answer.NextUploadIdMarker } : undefined;
    }
  }

  size(key: string): Promise<number | undefined> {
    return this.objects.size(key);
  }

  close(): Promise<void> {
    return this.objects.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private get client() {
    return this.objects.client;
  }

  private send<T>(
    call: string,
    key: string,
    bytes: number,
    work: (options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    return this.objects.send(call, key, bytes, work);
  }
}

function isNoSuchUpload(error: unknown): boolean {
  const { cause } = asError(error);
  return cause instanceof Error && cause.name === 'NoSuchUpload';
}
