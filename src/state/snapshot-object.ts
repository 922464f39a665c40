import { createHash } from 'node:crypto';
import type { ObjectStore, ObjectUpload } from '../contracts/object-store.ts';
import type { StateHandle } from '../contracts/state-handles.ts';
import type { Digest } from '../kernel/ids.ts';
import type { LocalCopy } from './local-copies.ts';

/** Flink's `state.storage.fs.memory-threshold`: less than this travels inside the acknowledgement. */
export const DEFAULT_MEMORY_THRESHOLD_BYTES = 20 * 1024;

/** More than this is sent in parts while the rest is still being serialised, so that memory stays bounded. */
const PUT_BYTES_MAX = 8 * 1024 * 1024;

/** Hashed at a time: a millisecond or two. */
const HASHED_BYTES = 1024 * 1024;

/**
 * Gathers the bytes of one snapshot and decides where they go: into the handle, into one put, or,
 * when there are many, into an upload in parts. Either `finish` or `abort` ends it.
 */
export class SnapshotObject {
  private readonly hash = createHash('sha256');
  private gathered: Buffer[] = [];
  private gatheredBytes = 0;
  private upload: ObjectUpload | undefined;
  /** Bytes appended so far: where the next section starts. */
  size = 0;

  constructor(
    private readonly deps: {
      readonly objects: ObjectStore;
      readonly memoryThresholdBytes: number;
      readonly yieldNow: () => Promise<void>;
    },
    private readonly key: string,
    private readonly copy?: LocalCopy | undefined,
  ) {}

  async append(bytes: Buffer, signal: AbortSignal): Promise<void> {
    for (let at = 0; at < bytes.length; at += HASHED_BYTES) {
      if (at > 0) {
        await this.deps.yieldNow();
        signal.throwIfAborted();
      }
      this.hash.update(bytes.subarray(at, at + HASHED_BYTES));
    }
    this.gathered.push(bytes);
    this.gatheredBytes += bytes.length;
    this.size += bytes.length;
    if (this.gatheredBytes < PUT_BYTES_MAX) return;
    this.upload ??= await this.deps.objects.upload(this.key);
    await this.write(this.upload);
  }

  async finish(signal: AbortSignal): Promise<StateHandle> {
    if (this.upload === undefined && this.size <= this.deps.memoryThresholdBytes) {
      return { kind: 'inline', bytes: new Uint8Array(this.take()) };
    }
    if (this.upload === undefined) {
      const bytes = this.take();
      await this.beside(bytes, this.deps.objects.put(this.key, bytes, signal));
    } else {
      if (this.gatheredBytes > 0) await this.write(this.upload);
      signal.throwIfAborted();
      await this.upload.complete();
      this.upload = undefined;
    }
    await this.copy?.finish();
    return { kind: 'object', key: this.key, size: this.size, digest: this.hash.digest('hex') as Digest };
  }

  async abort(): Promise<void> {
    this.gathered = [];
    await this.copy?.abandon();
    await this.upload?.abort();
  }

  private async write(upload: ObjectUpload): Promise<void> {
    const bytes = this.take();
    await this.beside(bytes, upload.write(bytes));
  }

  /** The copy is written meanwhile, and has been written also when `storing` fails: then it can be removed. */
  private async beside(bytes: Buffer, storing: Promise<void>): Promise<void> {
    const copying = this.copy?.write(bytes);
    try {
      await storing;
    } finally {
      await copying;
    }
  }

  private take(): Buffer {
    const bytes = Buffer.concat(this.gathered);
    this.gathered = [];
    this.gatheredBytes = 0;
    return bytes;
  }
}
