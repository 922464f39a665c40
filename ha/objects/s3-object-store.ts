import { setMaxListeners } from 'node:events';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import type { ObjectInfo, ObjectStore, ObjectUpload } from '../../src/contracts/object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { asError, isMillraceError, MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import { checkObjectKey, checkObjectPrefix, checkRange } from './check-object-key.ts';
import { CutShortError, S3Errors } from './s3-errors.ts';
import { S3Limit } from './s3-limit.ts';
import { S3Upload } from './s3-upload.ts';

export interface S3ObjectStoreDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

export interface S3ObjectStoreOptions {
  readonly bucket: string;
  /** Without slashes at its ends; every object lies under `<prefix>/`. */
  readonly prefix?: string | undefined;
  /** URL of an S3-compatible server; AWS when absent. */
  readonly endpoint?: string | undefined;
  readonly region?: string | undefined;
  /** Without it the SDK's default chain looks: environment, profile, instance. */
  readonly credentials?: S3Credentials | undefined;
  /** The bucket in the path rather than in the host name (default true when there is an endpoint). */
  readonly forcePathStyle?: boolean | undefined;
  /** How often a call is tried in all (default 3). */
  readonly attemptsMax?: number | undefined;
  /** How long the server may be silent, and all tries of one call may take on top of moving its bytes (default 10 s). */
  readonly timeoutMs?: number | undefined;
  /** Parallel connections (default 64). */
  readonly connectionsMax?: number | undefined;
}

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

/** What an upload needs of its store. */
export interface S3Calls {
  readonly client: S3Client;
  at(key: string): { readonly Bucket: string; readonly Key: string };
  send<T>(
    call: string,
    key: string,
    bytes: number,
    work: (options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T>;
  putWhole(key: string, bytes: Uint8Array): Promise<void>;
  abortUpload(key: string, uploadId: string): Promise<void>;
  size(key: string): Promise<number | undefined>;
}

/** A larger put is split, so that a retry repeats a part and not the whole. */
const SINGLE_PUT_MAX = 64 * 1024 * 1024;
const DELETE_BATCH = 1_000;
const DELETE_PARALLEL = 16;
const UNFINISHED_MAX_AGE_MS = 24 * 3_600_000;
/** Slower than this and a transfer has failed. */
const BYTES_PER_MS_MIN = 500;

/**
 * Objects in S3 and what speaks its protocol. Only calls that AWS, MinIO, Ceph and SeaweedFS all
 * have; no conditional writes (not all honour them), no checksums but those that are required
 * (not all take them): callers carry digests of their own.
 */
export class S3ObjectStore implements ObjectStore, S3Calls {
  readonly description: string;
  readonly client: S3Client;
  private readonly errors: S3Errors;
  private readonly tasks: BackgroundTasks;
  private readonly timeoutMs: number;
  private readonly root: string;
  private readonly stopped = new AbortController();
  private bucketSeen = false;
  private multiDelete = true;

  /** Connects when first called, so it can be made while the server is away. */
  constructor(
    private readonly deps: S3ObjectStoreDeps,
    private readonly options: S3ObjectStoreOptions,
  ) {
    const { bucket, prefix = '', credentials } = options;
    checkOptions(options);
    // One listener for each call that is on its way.
    setMaxListeners(0, this.stopped.signal);
    this.root = prefix === '' ? '' : `${prefix}/`;
    this.description = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}`;
    this.timeoutMs = options.timeoutMs ?? 10_000;
    this.tasks = new BackgroundTasks(deps.log);
    this.errors = new S3Errors(this.description, secretsOf(credentials));
    this.client = new S3Client({
      region: options.region ?? 'us-east-1',
      forcePathStyle: options.forcePathStyle ?? options.endpoint !== undefined,
      maxAttempts: options.attemptsMax ?? 3,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // Servers that do not answer it would cost every large put seconds.
      expectContinueHeader: false,
      requestHandler: {
        connectionTimeout: Math.min(2_000, this.timeoutMs),
        // Half, so that a call that met a hung connection can try another in its time.
        socketTimeout: this.timeoutMs / 2,
        httpAgent: { maxSockets: options.connectionsMax ?? 64, keepAlive: true },
        httpsAgent: { maxSockets: options.connectionsMax ?? 64, keepAlive: true },
      },
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      ...(credentials === undefined ? {} : { credentials: definedOnly(credentials) }),
    });
  }

  /** Also removes, in the background, the parts of uploads that nobody has finished for a day. */
  static start(deps: S3ObjectStoreDeps, options: S3ObjectStoreOptions): S3ObjectStore {
    const store = new S3ObjectStore(deps, options);
    store.tasks.run('sweep unfinished uploads', () => store.sweepOrSay());
    return store;
  }

  async put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkObjectKey(key);
    if (bytes.length <= SINGLE_PUT_MAX) {
      await this.putWhole(key, bytes, signal);
      return;
    }
    const upload = new S3Upload(this, key);
    try {
      for (let at = 0; at < bytes.length; at += SINGLE_PUT_MAX) {
        signal?.throwIfAborted();
        await upload.write(bytes.subarray(at, at + SINGLE_PUT_MAX));
      }
      await upload.complete();
    } catch (error) {
      await upload.abort().catch((err: unknown) => {
        this.deps.log.warn({ err: asError(err), key }, 'parts of a failed upload remain until they are swept');
      });
      throw error;
    }
  }

  async get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    checkObjectKey(key);
    return this.read('get', key, {}, signal);
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkObjectKey(key);
    checkRange(offset, length);
    if (length > 0) {
      try {
        return await this.read('getRange', key, { Range: `bytes=${offset}-${offset + length - 1}` }, signal);
      } catch (error) {
        if (!(error instanceof RangeBeyondEnd)) throw error;
      }
    }
    // Nothing to read is an answer only if the object is there.
    if ((await this.size(key)) === undefined) throw new NotFoundError(`${this.description} has no object ${key}`);
    return new Uint8Array(0);
  }

  async size(key: string): Promise<number | undefined> {
    checkObjectKey(key);
    try {
      const command = new HeadObjectCommand(this.at(key));
      const { ContentLength } = await this.send('size', key, 0, (options) => this.client.send(command, options));
      return ContentLength;
    } catch (error) {
      if (!isMillraceError(error, 'NOT_FOUND')) throw error;
      // An answer to HEAD has no words: without the bucket it looks the same.
      await this.requireBucket();
      return undefined;
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkObjectKey(key);
    const unique = [...new Set(keys)];
    for (let at = 0; at < unique.length; at += DELETE_BATCH)
      await this.deleteBatch(unique.slice(at, at + DELETE_BATCH));
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    checkObjectPrefix(prefix);
    let token: string | undefined;
    do {
      const page = { Bucket: this.options.bucket, Prefix: this.root + prefix, ContinuationToken: token };
      const command = new ListObjectsV2Command(page);
      const answer = await this.send('list', prefix, 0, (options) => this.client.send(command, options));
      for (const { Key = '', Size = 0, LastModified } of answer.Contents ?? [])
        yield { key: Key.slice(this.root.length), bytes: Size, modifiedMs: LastModified?.getTime() ?? 0 };
      token = answer.IsTruncated === true ? answer.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  async upload(key: string): Promise<ObjectUpload> {
    checkObjectKey(key);
    this.requireOpen();
    return new S3Upload(this, key);
  }

  async close(): Promise<void> {
    this.stopped.abort();
    await this.tasks.drain();
    this.client.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.options.bucket, Key: this.root + key };
  }

  /** Runs one call of the SDK within its time; `bytes` is what it has to move. */
  async send<T>(
    call: string,
    key: string,
    bytes: number,
    work: (options: { abortSignal: AbortSignal }) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    return this.within(call, key, this.timeoutMs + bytes / BYTES_PER_MS_MIN, signal, (limit) =>
      work({ abortSignal: limit.signal }),
    );
  }

  async putWhole(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    // A view, not a copy. A Buffer: from streams the SDK makes chunks that not all servers take.
    const Body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const command = new PutObjectCommand({ ...this.at(key), Body, ContentLength: Body.length });
    await this.send('put', key, Body.length, (options) => this.client.send(command, options), signal);
  }

  async abortUpload(key: string, uploadId: string): Promise<void> {
    const command = new AbortMultipartUploadCommand({ ...this.at(key), UploadId: uploadId });
    try {
      await this.send('abort', key, 0, (options) => this.client.send(command, options));
    } catch (error) {
      if (!says(error, 'NoSuchUpload')) throw error;
    }
  }

  private async within<T>(
    call: string,
    key: string,
    limitMs: number,
    signal: AbortSignal | undefined,
    work: (limit: S3Limit) => Promise<T>,
  ): Promise<T> {
    this.requireOpen();
    signal?.throwIfAborted();
    const limit = new S3Limit(this.deps.clock, limitMs, signal, this.stopped.signal);
    try {
      const result = await work(limit);
      this.bucketSeen = true;
      return result;
    } catch (error) {
      if (error instanceof RangeBeyondEnd) throw error;
      if (limit.ended === 'time') throw this.errors.timedOut(call, key, limitMs);
      if (limit.ended === 'caller') throw limit.callersReason;
      if (limit.ended === 'closed') throw this.closedError();
      throw this.errors.translated(call, key, error);
    } finally {
      limit.end();
    }
  }

  /** The SDK repeats a request until its answer begins; what breaks after that is repeated here. */
  private async read(call: string, key: string, range: { Range?: string }, signal?: AbortSignal): Promise<Uint8Array> {
    const attemptsMax = this.options.attemptsMax ?? 3;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.within(call, key, this.timeoutMs, signal, (limit) => this.readOnce(key, range, limit));
      } catch (error) {
        if (!(error instanceof CutShortError) || attempt >= attemptsMax) throw error;
        this.deps.log.warn({ err: error, key, attempt }, 'object was cut short while it was read');
      }
    }
  }

  private async readOnce(key: string, range: { Range?: string }, limit: S3Limit): Promise<Uint8Array> {
    const command = new GetObjectCommand({ ...this.at(key), ...range });
    let answer: GetObjectCommandOutput;
    try {
      answer = await this.client.send(command, { abortSignal: limit.signal });
    } catch (error) {
      if (asError(error).name === 'InvalidRange') throw new RangeBeyondEnd();
      throw error;
    }
    const announced = answer.ContentLength ?? 0;
    const bytes = new Uint8Array(announced);
    let got = 0;
    const body = answer.Body as (AsyncIterable<Uint8Array> & { destroy(error?: Error): void }) | undefined;
    const stop = () => body?.destroy(new Error('stopped'));
    limit.signal.addEventListener('abort', stop);
    try {
      for await (const chunk of body ?? []) {
        limit.touch();
        if (got + chunk.length > announced) throw this.errors.cutShort(key, got + chunk.length, announced);
        bytes.set(chunk, got);
        got += chunk.length;
      }
    } catch (error) {
      if (limit.ended !== undefined) throw error;
      throw this.errors.cutShort(key, got, announced);
    } finally {
      limit.signal.removeEventListener('abort', stop);
    }
    if (got !== announced) throw this.errors.cutShort(key, got, announced);
    return bytes;
  }

  private async deleteBatch(keys: readonly string[]): Promise<void> {
    if (keys.length > 1 && this.multiDelete && (await this.deleteTogether(keys))) return;
    const waiting = [...keys];
    const worker = async () => {
      for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) await this.deleteOne(key);
    };
    await Promise.all(Array.from({ length: Math.min(DELETE_PARALLEL, keys.length) }, worker));
  }

  /** False when the server does not take such a request. */
  private async deleteTogether(keys: readonly string[]): Promise<boolean> {
    const Objects = keys.map((key) => ({ Key: this.root + key }));
    const command = new DeleteObjectsCommand({ Bucket: this.options.bucket, Delete: { Objects, Quiet: true } });
    try {
      const answer = await this.send('delete', '', 0, (options) => this.client.send(command, options));
      const failed = (answer.Errors ?? []).filter(({ Code }) => Code !== 'NoSuchKey');
      for (const { Key = '' } of failed) await this.deleteOne(Key.slice(this.root.length));
      return true;
    } catch (error) {
      if (!isMillraceError(error, 'INTERNAL') && !says(error, 'NotImplemented')) throw error;
      this.multiDelete = false;
      this.deps.log.info({ err: error, store: this.description }, 'deleting objects one by one from now on');
      return false;
    }
  }

  private async deleteOne(key: string): Promise<void> {
    const command = new DeleteObjectCommand(this.at(key));
    try {
      await this.send('delete', key, 0, (options) => this.client.send(command, options));
    } catch (error) {
      if (!isMillraceError(error, 'NOT_FOUND')) throw error;
    }
  }

  private async requireBucket(): Promise<void> {
    if (this.bucketSeen) return;
    const command = new HeadBucketCommand({ Bucket: this.options.bucket });
    try {
      await this.send('look for the bucket', '', 0, (options) => this.client.send(command, options));
    } catch (error) {
      if (!isMillraceError(error, 'NOT_FOUND')) throw error;
      const gone = new Error(`there is no bucket ${this.options.bucket}`);
      gone.name = 'NoSuchBucket';
      throw this.errors.translated('size', '', gone);
    }
  }

  private async sweepOrSay(): Promise<void> {
    try {
      const command = new ListMultipartUploadsCommand({ Bucket: this.options.bucket, Prefix: this.root });
      const { Uploads = [] } = await this.send('sweep', '', 0, (options) => this.client.send(command, options));
      for (const { Key = '', UploadId, Initiated } of Uploads) {
        const ageMs = this.deps.clock.wallMs() - (Initiated?.getTime() ?? Number.POSITIVE_INFINITY);
        if (UploadId !== undefined && ageMs > UNFINISHED_MAX_AGE_MS)
          await this.abortUpload(Key.slice(this.root.length), UploadId);
      }
    } catch (error) {
      // The server may be away, or not know this call; the next start tries again.
      this.deps.log.debug({ err: asError(error), store: this.description }, 'unfinished uploads were not swept');
    }
  }

  private requireOpen(): void {
    if (this.stopped.signal.aborted) throw this.closedError();
  }

  private closedError(): MillraceError {
    return new MillraceError('CLOSED', `${this.description} is closed`);
  }
}

/** HTTP 416: an answer, not a failure. */
class RangeBeyondEnd extends Error {}

function says(error: unknown, name: string): boolean {
  const { cause } = asError(error);
  return cause instanceof Error && cause.name === name;
}

function checkOptions(options: S3ObjectStoreOptions): void {
  const problems: string[] = [];
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(options.bucket))
    problems.push(`bucket name ${JSON.stringify(options.bucket)} is not valid`);
  const { prefix = '', endpoint, credentials } = options;
  try {
    if (prefix !== '') checkObjectKey(prefix);
  } catch (error) {
    problems.push(`prefix: ${asError(error).message}`);
  }
  if (prefix.length > 400) problems.push('prefix is longer than 400 characters');
  if (endpoint !== undefined && !(URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol)))
    problems.push('endpoint is not an http:// or https:// URL');
  else if (endpoint !== undefined && new URL(endpoint).username !== '')
    problems.push('endpoint must not hold credentials');
  if (credentials !== undefined && (credentials.accessKeyId === '' || credentials.secretAccessKey === ''))
    problems.push('access key and secret key must both be set');
  for (const name of ['attemptsMax', 'timeoutMs', 'connectionsMax'] as const) {
    const value = options[name];
    if (value !== undefined && !(value >= 1)) problems.push(`${name} must be at least 1, is ${value}`);
  }
  if (problems.length > 0) throw new MillraceError('CONFIGURATION', `S3: ${problems.join('; ')}`);
}

function secretsOf(credentials: S3Credentials | undefined): string[] {
  if (credentials === undefined) return [];
  const { accessKeyId, secretAccessKey, sessionToken } = credentials;
  return [secretAccessKey, sessionToken, accessKeyId].filter((one) => one !== undefined && one !== '') as string[];
}

function definedOnly({ accessKeyId, secretAccessKey, sessionToken }: S3Credentials) {
  const pair = { accessKeyId, secretAccessKey };
  return sessionToken === undefined ? pair : { ...pair, sessionToken };
}
