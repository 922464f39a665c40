import type { RuntimeContext } from '../api/functions.ts';
import type { CommitContext, TwoPhaseCommitSink } from '../api/sink.ts';
import {
  type CommitReason,
  isLeftover,
  type PreCommitted,
  TwoPhaseCommitSinkFunction,
  twoPhaseCommitSink,
} from '../api/two-phase-commit.ts';
import type { MultipartStore } from '../contracts/multipart-store.ts';
import { present } from '../kernel/assert.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import { CorruptError, FencedError, InvalidArgumentError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import { type Random, SystemRandom } from '../kernel/random.ts';
import { type Backoff, retry } from '../kernel/retry.ts';
import { Backlog } from './part-file.ts';
import { checkNaming, encodeRow, type PartNaming, type RowEncoder } from './rows.ts';
import { parseS3Uri, type S3Access, type S3Folder, type S3Provider, s3Provider } from './s3-provider.ts';
import { type S3Committable, S3Part } from './s3-part.ts';

/**
 * Rows in objects of a bucket, exactly once.
 *
 * An object is a multipart upload, whose parts go out as rows come. At a checkpoint the upload is cut and its
 * last part sent; once the checkpoint has completed the upload is completed, and that makes the object
 * visible, in one step, whole: `<prefix>/part-<subtask>-<deployment>-<job>-<attempt>-<n>`. Nothing else ever
 * is, so a reader takes every object under the prefix; and none changes once it is there.
 *
 * Why a zombie cannot make output visible twice: the reasons F1 to F4 of the file sink, with "rename" read as
 * "complete the upload". S3 gives an upload id once, and completes it once:
 *
 *   S1. Completing an upload that is gone decides by the object: with the right size it was completed before, by
 *       a try whose answer was lost, or by another attempt; that is success.
 *   S2. Without the object the upload was aborted. To the attempt that made it this says that a later
 *       deployment has cleaned up after it: `FENCED`. To one that restored it, that output is lost.
 *   S3. Uploads of dead attempts are found by listing, and aborted by the heir of their subtask once nothing
 *       of them can be wanted any more (X4). Where a server lists none by prefix (MinIO) its own clean-up of
 *       stale uploads does it, or a life-cycle rule of the bucket; either must be later than the oldest
 *       checkpoint that may be restored.
 */
export interface S3SinkOptions<T> extends PartNaming {
  readonly name?: string;
  /** One row without its newline. Default: strings as they are, everything else as JSON. */
  readonly encoder?: RowEncoder<T>;
  /** An object that has reached this size is followed by another. Default: one for each checkpoint. */
  readonly maxObjectBytes?: number;
  /** A part is sent when this much has gathered (default and minimum 5 MiB); held in memory, for each subtask. */
  readonly uploadBytes?: number;
  /** How long a store that is away holds back the stream before the task fails. Default one minute. */
  readonly patienceMs?: number;
  /** What to think when a restored checkpoint names an upload that is gone and has no object. As for files. */
  readonly whenMissing?: 'fail' | 'assume-consumed';
  /** Where the server is, if not where the cluster's `s3.*` keys say. Secrets in a program can be read by who has its jar. */
  readonly access?: S3Access;
  readonly random?: Random;
  readonly clock?: Clock;
  /** Default: what the process has installed. */
  readonly provider?: S3Provider;
}

const UPLOAD_BYTES_MIN = 5 * 1024 * 1024;
const PATIENCE_MS = 60_000;
const BACKOFF: Backoff = { initialMs: 100, maxMs: 5_000, multiplier: 2 };

/** Writes rows to objects under `s3://bucket/prefix`. */
export function s3Sink<T>(
  uri: string,
  options: S3SinkOptions<T> = {},
): TwoPhaseCommitSink<T, PreCommitted<S3Committable>> {
  const folder = parseS3Uri(uri);
  const { maxObjectBytes = Number.POSITIVE_INFINITY, uploadBytes = UPLOAD_BYTES_MIN } = options;
  const naming = checkNaming(options);
  if (!(maxObjectBytes > 0)) throw new InvalidArgumentError(`maxObjectBytes is ${maxObjectBytes}; it must be positive`);
  if (!(uploadBytes >= UPLOAD_BYTES_MIN && uploadBytes <= 5 * 1024 ** 3))
    throw new InvalidArgumentError(`uploadBytes is ${uploadBytes}; S3 takes parts of 5 MiB to 5 GiB`);
  const settings = {
    naming,
    maxObjectBytes,
    uploadBytes,
    encoder: options.encoder ?? encodeRow,
    patienceMs: options.patienceMs ?? PATIENCE_MS,
    whenMissing: options.whenMissing ?? 'fail',
    access: options.access ?? {},
    random: options.random ?? new SystemRandom(),
    clock: options.clock ?? new SystemClock(),
    provider: options.provider,
  };
  const name = options.name ?? `S3 Sink: s3://${folder.bucket}/${folder.prefix}`;
  return twoPhaseCommitSink(name, (context) => new S3SinkFunction<T>(folder, settings, context));
}

interface Settings<T> {
  readonly naming: Required<PartNaming>;
  readonly maxObjectBytes: number;
  readonly uploadBytes: number;
  readonly encoder: RowEncoder<T>;
  readonly patienceMs: number;
  readonly whenMissing: 'fail' | 'assume-consumed';
  readonly access: S3Access;
  readonly random: Random;
  readonly clock: Clock;
  readonly provider: S3Provider | undefined;
}

class S3SinkFunction<T> extends TwoPhaseCommitSinkFunction<T, S3Part[], S3Committable> {
  private readonly backlog: Backlog;
  private readonly closing = new AbortController();
  /** Random, one for each attempt: with it no key is ever used again. */
  private readonly attempt: string;
  private readonly stop: AbortSignal;
  private store: MultipartStore | undefined;
  private objects = 0;

  constructor(
    private readonly folder: S3Folder,
    private readonly settings: Settings<T>,
    private readonly context: RuntimeContext & CommitContext,
  ) {
    super();
    this.attempt = settings.random.hex(6);
    this.backlog = new Backlog(2 * settings.uploadBytes);
    this.stop =
      context.signal === undefined ? this.closing.signal : AbortSignal.any([context.signal, this.closing.signal]);
  }

  override async open(): Promise<void> {
    this.store = await this.provider().open(this.folder.bucket, this.settings.access);
  }

  begin(): S3Part[] {
    return [];
  }

  write(objects: S3Part[], value: T): void {
    if (this.backlog.failure !== undefined) throw this.failed(this.backlog.failure);
    const row = this.settings.encoder(value);
    let object = objects.at(-1);
    if (object === undefined || object.full || object.size >= this.settings.maxObjectBytes) {
      object?.seal();
      object = this.newObject();
      objects.push(object);
    }
    object.append(row);
  }

  override ready(): Promise<void> | undefined {
    return this.backlog.ready();
  }

  override async flush(objects: S3Part[]): Promise<void> {
    for (const object of objects) object.seal();
  }

  async preCommit(objects: S3Part[]): Promise<readonly S3Committable[]> {
    try {
      return await Promise.all(objects.map((object) => object.finish()));
    } catch (error) {
      throw this.failed(error);
    }
  }

  async commit(preCommitted: readonly PreCommitted<S3Committable>[], reason: CommitReason): Promise<void> {
    for (const one of preCommitted) {
      // An announced commit is repeated by the caller; at the start of an attempt nobody does.
      if (reason === 'announced') await this.commitOne(one, reason);
      else await this.patiently(() => this.commitOne(one, reason));
    }
  }

  async abort(objects: S3Part[]): Promise<void> {
    this.closing.abort(); // What is sent now would only be thrown away.
    for (const object of objects) await object.discard();
  }

  override async abortLeftovers(): Promise<void> {
    const store = this.opened();
    const { partPrefix } = this.settings.naming;
    const found: { key: string; uploadId: string }[] = [];
    for await (const upload of store.list(`${this.folder.prefix}${partPrefix}-`)) {
      const owner = this.ownerOf(upload.key);
      if (owner !== undefined && isLeftover(owner, this.context)) found.push(upload);
    }
    for (const upload of found) await store.abort(upload);
  }

  override async close(): Promise<void> {
    this.closing.abort();
    await this.store?.close();
  }

  private async commitOne(
    { committable, deployment, checkpointId }: PreCommitted<S3Committable>,
    reason: CommitReason,
  ): Promise<void> {
    const { bucket, key, bytes, parts } = committable;
    if (bucket !== this.folder.bucket)
      throw new InvalidArgumentError(`the checkpoint holds output for bucket ${bucket}, not ${this.folder.bucket}`, {
        hint: 'Start once with the former bucket, so that its output is committed, and stop with a savepoint.',
      });
    const store = this.opened();
    if ((await store.complete(committable, parts)) === 'completed') return;
    const size = await store.size(key); // S1
    if (size === bytes) return;
    const where = `${store.description}: ${key} of deployment ${deployment}, checkpoint ${checkpointId},`;
    if (size !== undefined)
      throw new CorruptError(`${where} has ${size} bytes, but ${bytes} were written and checkpointed`, {
        hint: 'Something else has written the object; its rows cannot be made again from the checkpoint.',
      });
    if (reason === 'announced') throw new FencedError(`${where} was aborted: a newer deployment has taken over`); // S2
    if (this.settings.whenMissing === 'assume-consumed') return;
    throw new CorruptError(`${where} is lost: neither its upload nor the object exists, of ${bytes} bytes`, {
      hint:
        'Life-cycle rules must not abort uploads that a retained checkpoint holds; when a consumer removes committed ' +
        "objects, build the sink with whenMissing: 'assume-consumed'.",
    });
  }

  private newObject(): S3Part {
    const { partPrefix, partSuffix } = this.settings.naming;
    const { subtaskIndex, deployment, jobId } = this.context;
    const name = `${partPrefix}-${subtaskIndex}-${deployment}-${jobId}-${this.attempt}-${this.objects++}${partSuffix}`;
    return new S3Part(this.folder.prefix + name, {
      bucket: this.folder.bucket,
      store: this.opened(),
      backlog: this.backlog,
      uploadBytes: this.settings.uploadBytes,
      patiently: (work) => this.patiently(work),
    });
  }

  /** Whose upload it is, if one of this job and this sink's names. */
  private ownerOf(key: string): { readonly subtaskIndex: number; readonly deployment: string } | undefined {
    const name = key.slice(this.folder.prefix.length + this.settings.naming.partPrefix.length);
    const [, index, deployment, job] = /^-(\d+)-(\d+-\d+)-([0-9a-f]{32})-[0-9a-f]+-\d+/.exec(name) ?? [];
    if (index === undefined || deployment === undefined || job !== this.context.jobId) return undefined;
    return { subtaskIndex: Number(index), deployment };
  }

  /** A store that is away for a while costs time, not a restart: the backlog holds back the stream meanwhile. */
  private patiently<R>(work: () => Promise<R>): Promise<R> {
    const { clock, random, patienceMs } = this.settings;
    const deadlineMs = clock.nowMs() + patienceMs;
    const { log } = this.provider();
    return retry(
      { clock, random },
      {
        backoff: BACKOFF,
        retryable: (error) => isMillraceError(error, 'UNAVAILABLE') && clock.nowMs() < deadlineMs,
        onRetry: (err, attempt, waitMs) =>
          log.warn({ err, bucket: this.folder.bucket, attempt, waitMs }, 'S3 sink waits for its store'),
        signal: this.stop,
      },
      work,
    );
  }

  private provider(): S3Provider {
    return this.settings.provider ?? s3Provider();
  }

  private opened(): MultipartStore {
    return present(this.store, 'the bucket of an open sink');
  }

  private failed(cause: unknown): MillraceError {
    return new MillraceError(
      'UNAVAILABLE',
      `writing to s3://${this.folder.bucket}/${this.folder.prefix} failed: ${String(cause)}`,
      { cause },
    );
  }
}
