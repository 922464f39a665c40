import type { Closeable } from '../kernel/lifecycle.ts';

/**
 * Immutable objects under unique names.
 *
 * No adapter fences: an object becomes visible only through a coordination pointer that carries
 * its digest. Callers therefore never overwrite a key and verify what they read.
 *
 * Errors: `NOT_FOUND` for a missing key, `UNAVAILABLE` when the store cannot be reached or answers
 * 5xx after bounded retries (a put that failed so may still have left an orphan object: sweepers
 * remove it), `CORRUPT` when the adapter itself sees damage.
 */
export interface ObjectStore extends Closeable {
  /** For logs and messages; never holds credentials. Example: `s3://bucket/prefix`, `file:/data`. */
  readonly description: string;
  /** Resolves once durable. Keys are relative paths of `[A-Za-z0-9._/-]`, no `..`, at most 512 characters and 200 between slashes. */
  put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  get(key: string, signal?: AbortSignal): Promise<Uint8Array>;
  /** `length` bytes from `offset`; shorter at the object's end. */
  getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Size in bytes, or undefined when there is no such object. */
  size(key: string): Promise<number | undefined>;
  /** Idempotent: deleting what is not there succeeds. */
  delete(keys: readonly string[]): Promise<void>;
  /** Every object whose key starts with `prefix`, in key order, page by page. */
  list(prefix: string): AsyncIterable<ObjectInfo>;
  /** Starts a large upload in parts; nothing is visible before `complete`. */
  upload(key: string): Promise<ObjectUpload>;
}

export interface ObjectInfo {
  readonly key: string;
  readonly bytes: number;
  /** By the store's clock, milliseconds since the epoch. */
  readonly modifiedMs: number;
}

export interface ObjectUpload {
  /** Parts are kept in order of the calls. Any size: the adapter gathers them to the store's minimum. */
  write(bytes: Uint8Array): Promise<void>;
  complete(): Promise<void>;
  /** Idempotent; leaves nothing behind. */
  abort(): Promise<void>;
}
