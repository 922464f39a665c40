import type { ObjectInfo, ObjectStore, ObjectUpload } from '../../src/contracts/object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import { checkObjectKey, checkObjectPrefix, checkRange } from './check-object-key.ts';

export type ObjectCallKind = 'put' | 'get' | 'getRange' | 'size' | 'delete' | 'list' | 'upload' | 'complete';

/** Asked before every call; what it throws, the call throws. Set it to inject faults. */
export type ObjectInterceptor = (call: { readonly kind: ObjectCallKind; readonly key: string }) => void | Promise<void>;

/** Objects as they would be in another process: copied in, copied out, gone with this one. */
export class MemoryObjectStore implements ObjectStore {
  readonly description = 'memory:';
  intercept: ObjectInterceptor | undefined;
  private readonly objects = new Map<string, { readonly bytes: Uint8Array; readonly modifiedMs: number }>();
  private closed = false;

  constructor(private readonly clock: Clock) {}

  async put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkObjectKey(key);
    await this.enter('put', key, signal);
    this.objects.set(key, { bytes: new Uint8Array(bytes), modifiedMs: this.clock.wallMs() });
  }

  async get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    checkObjectKey(key);
    await this.enter('get', key, signal);
    return new Uint8Array(this.existing(key));
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkObjectKey(key);
    checkRange(offset, length);
    await this.enter('getRange', key, signal);
    return this.existing(key).slice(offset, offset + length);
  }

  async size(key: string): Promise<number | undefined> {
    checkObjectKey(key);
    await this.enter('size', key);
    return this.objects.get(key)?.bytes.length;
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkObjectKey(key);
    for (const key of keys) {
      await this.enter('delete', key);
      this.objects.delete(key);
    }
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    checkObjectPrefix(prefix);
    await this.enter('list', prefix);
    for (const key of [...this.objects.keys()].filter((one) => one.startsWith(prefix)).sort()) {
      const object = this.objects.get(key);
      if (object !== undefined) yield { key, bytes: object.bytes.length, modifiedMs: object.modifiedMs };
    }
  }

  async upload(key: string): Promise<ObjectUpload> {
    checkObjectKey(key);
    await this.enter('upload', key);
    return new MemoryUpload(async (bytes) => {
      await this.enter('complete', key);
      this.objects.set(key, { bytes, modifiedMs: this.clock.wallMs() });
    });
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async enter(kind: ObjectCallKind, key: string, signal?: AbortSignal): Promise<void> {
    if (this.closed) throw new MillraceError('CLOSED', `${this.description} is closed`);
    signal?.throwIfAborted();
    await this.intercept?.({ kind, key });
  }

  private existing(key: string): Uint8Array {
    const object = this.objects.get(key);
    if (object === undefined) throw new NotFoundError(`${this.description} has no object ${key}`);
    return object.bytes;
  }
}

class MemoryUpload implements ObjectUpload {
  private parts: Uint8Array[] | undefined = [];

  constructor(private readonly publish: (bytes: Uint8Array) => Promise<void>) {}

  async write(bytes: Uint8Array): Promise<void> {
    this.open().push(new Uint8Array(bytes));
  }

  async complete(): Promise<void> {
    const parts = this.open();
    await this.publish(new Uint8Array(Buffer.concat(parts)));
    this.parts = undefined;
  }

  async abort(): Promise<void> {
    this.parts = undefined;
  }

  private open(): Uint8Array[] {
    if (this.parts === undefined) throw new MillraceError('CONFLICT', 'the upload was completed or aborted');
    return this.parts;
  }
}
