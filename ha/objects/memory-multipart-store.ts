import { createHash } from 'node:crypto';
import type { MultipartStore, UploadedPart, UploadName } from '../../src/contracts/multipart-store.ts';
import { MillraceError } from '../../src/kernel/errors.ts';
import { checkObjectKey, checkObjectPrefix } from './check-object-key.ts';

type MultipartCall = 'create' | 'uploadPart' | 'complete' | 'abort' | 'list' | 'size';
/** `before`: what it throws, the call throws, and nothing has happened. `after`: it has, and the answer is lost. */
export type MultipartInterceptor = (call: MultipartCall, when: 'before' | 'after', key: string) => void | Promise<void>;

interface Upload {
  readonly key: string;
  readonly parts: Map<number, { readonly etag: string; readonly bytes: Buffer }>;
}

/** A bucket in memory, strict where servers are: parts in order, of a size, with the ETags they were given. */
export class MemoryMultipartStore implements MultipartStore {
  readonly description = 'memory:';
  intercept: MultipartInterceptor | undefined;
  private readonly bucket: {
    readonly objects: Map<string, Buffer>;
    readonly uploads: Map<string, Upload>;
    next: number;
  };

  /** With `other`: another client of its bucket. */
  constructor(other?: MemoryMultipartStore) {
    this.bucket = other?.bucket ?? { objects: new Map(), uploads: new Map(), next: 1 };
  }

  get objects(): ReadonlyMap<string, Buffer> {
    return this.bucket.objects;
  }

  async create(key: string): Promise<string> {
    checkObjectKey(key);
    return this.calling('create', key, () => {
      const uploadId = `upload-${this.bucket.next++}`;
      this.bucket.uploads.set(uploadId, { key, parts: new Map() });
      return uploadId;
    });
  }

  uploadPart({ key, uploadId }: UploadName, number: number, bytes: Uint8Array): Promise<UploadedPart> {
    const copy = Buffer.from(bytes);
    return this.calling('uploadPart', key, () => {
      const upload = this.bucket.uploads.get(uploadId);
      if (upload?.key !== key) throw new MillraceError('INTERNAL', `NoSuchUpload: ${key}`);
      const etag = createHash('md5').update(copy).digest('hex');
      upload.parts.set(number, { etag, bytes: copy });
      return { number, etag };
    });
  }

  complete({ key, uploadId }: UploadName, parts: readonly UploadedPart[]): Promise<'completed' | 'gone'> {
    return this.calling('complete', key, () => {
      const upload = this.bucket.uploads.get(uploadId);
      if (upload?.key !== key) return 'gone';
      const contents = parts.map(({ number, etag }, i) => {
        const part = upload.parts.get(number);
        if (part?.etag !== etag) throw new MillraceError('INTERNAL', `InvalidPart: ${key} part ${number}`);
        if (i > 0 && (parts[i - 1] as UploadedPart).number >= number)
          throw new MillraceError('INTERNAL', `InvalidPartOrder: ${key} part ${number}`);
        if (i < parts.length - 1 && part.bytes.length < 5 * 1024 * 1024)
          throw new MillraceError('INTERNAL', `EntityTooSmall: ${key} part ${number}`);
        return part.bytes;
      });
      if (contents.length === 0) throw new MillraceError('INTERNAL', `MalformedXML: ${key} has no parts`);
      this.bucket.objects.set(key, Buffer.concat(contents));
      this.bucket.uploads.delete(uploadId);
      return 'completed';
    });
  }

  abort({ key, uploadId }: UploadName): Promise<void> {
    return this.calling('abort', key, () => {
      if (this.bucket.uploads.get(uploadId)?.key === key) this.bucket.uploads.delete(uploadId);
    });
  }

  async *list(prefix: string): AsyncIterable<UploadName> {
    checkObjectPrefix(prefix);
    await this.calling('list', prefix, () => undefined);
    for (const [uploadId, { key }] of [...this.bucket.uploads]) if (key.startsWith(prefix)) yield { key, uploadId };
  }

  size(key: string): Promise<number | undefined> {
    return this.calling('size', key, () => this.bucket.objects.get(key)?.length);
  }

  async close(): Promise<void> {
    this.intercept = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async calling<R>(call: MultipartCall, key: string, work: () => R): Promise<R> {
    await this.intercept?.(call, 'before', key);
    const result = work();
    await this.intercept?.(call, 'after', key);
    return result;
  }
}
