import type { Closeable } from '../kernel/lifecycle.ts';

/**
 * One bucket's multipart uploads: large writes that are durable part by part and visible only with
 * `complete`. Unlike `ObjectUpload` an upload is named by plain data, so that another process can end
 * what this one began.
 *
 * Errors: `UNAVAILABLE` when the store cannot be reached, answers 5xx after bounded retries, or refuses the
 * credentials; messages never hold credentials.
 */
export interface MultipartStore extends Closeable {
  /** For messages. Example: `s3://bucket`. */
  readonly description: string;
  /** Begins an upload of an object that is not there yet, and never was: names are used once. */
  create(key: string): Promise<string>;
  /** Resolves once the part is durable. Numbers run from 1; all parts but the last have at least 5 MiB. */
  uploadPart(upload: UploadName, number: number, bytes: Uint8Array): Promise<UploadedPart>;
  /**
   * Makes the object visible. `gone`: the store knows no such upload (any more): it was completed before, or
   * aborted; whether the object is there tells which. Safe to
   * repeat and to race, though the slower of two may be told `UNAVAILABLE` and has to ask again.
   */
  complete(upload: UploadName, parts: readonly UploadedPart[]): Promise<'completed' | 'gone'>;
  /** Idempotent; frees the parts. Does nothing to an object that was completed. */
  abort(upload: UploadName): Promise<void>;
  /**
   * Uploads begun and not ended whose key starts with `prefix`. A server may know fewer than there are (MinIO
   * answers only for whole keys): it is for cleaning up, never for deciding.
   */
  list(prefix: string): AsyncIterable<UploadName>;
  /** Size in bytes, or undefined when there is no such object. */
  size(key: string): Promise<number | undefined>;
}

/** Names one upload, in all processes. */
export interface UploadName {
  readonly key: string;
  readonly uploadId: string;
}

export interface UploadedPart {
  readonly number: number;
  /** As the store gave it. */
  readonly etag: string;
}
