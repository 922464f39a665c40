import type { JarView, JobDetailsView, JobOverviewView } from '../contracts/views.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { JobMasterHandle } from '../contracts/job-master.ts';
import type { RunJarRequest } from '../contracts/dispatcher-gateway.ts';
import type { TerminalJobStatus } from '../contracts/job-status.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { Digest, FencingToken, JarId, JobId } from '../kernel/ids.ts';

/**
 * What the Dispatcher needs kept. Every mutation carries the fencing token and rejects with
 * `FencedError` when it no longer leads; every mutation that rejects otherwise has either not
 * happened or says `UNKNOWN_OUTCOME` after it could not be read back.
 */

/** Jobs that were promised to run. */
export interface JobGraphStore {
  /**
   * Object first, then one fenced transaction with "neither `jobs/<id>` nor `results/<id>` exists"
   * (and the idempotency key, when given). `duplicate` names the job that already has the id or key.
   */
  submit(
    graph: JobGraph,
    token: FencingToken,
    options: { readonly idempotencyKey?: string },
  ): Promise<{ readonly outcome: 'created' | 'duplicate'; readonly jobId: JobId }>;
  /** Which job an idempotency key stands for, if any. */
  findByIdempotencyKey(key: string): Promise<JobId | undefined>;
  /** Ids and wishes only, so that one corrupt graph never hides the others. */
  list(): Promise<readonly StoredJob[]>;
  /** Rejects with `CORRUPT`, `UNSUPPORTED_VERSION`, `UNAVAILABLE` or `NOT_FOUND`. */
  load(jobId: JobId): Promise<JobGraph>;
  /** Durable wish to cancel; idempotent. Rejects with `NOT_FOUND` when the job has ended or never was. */
  requestCancel(jobId: JobId, token: FencingToken): Promise<void>;
}

export interface StoredJob {
  readonly jobId: JobId;
  readonly name: string;
  readonly submittedWallMs: number;
  readonly cancelRequested: boolean;
}

/** A job that has ended. Terminal is terminal: a job with a result never runs again. */
export interface JobResult {
  readonly jobId: JobId;
  readonly name: string;
  readonly status: TerminalJobStatus;
  readonly error: ErrorInfo | undefined;
  readonly endedWallMs: number;
}

export interface ListedResult extends JobResult {
  readonly dirty: boolean;
  /** What a list of jobs shows, kept with the result so that listing reads no objects. */
  readonly overview: JobOverviewView;
}

export interface JobResultStore {
  /**
   * One fenced transaction: writes `results/<id>` as dirty and removes `jobs/<id>`. The details are an
   * object stored before. Idempotent: a second call for a job with a result changes nothing.
   */
  complete(result: JobResult, details: JobDetailsView, token: FencingToken): Promise<void>;
  get(jobId: JobId): Promise<JobResult | undefined>;
  /** Undefined when the details cannot be read any more; the result itself stays. */
  details(jobId: JobId): Promise<JobDetailsView | undefined>;
  /** Newest first. */
  list(): Promise<readonly ListedResult[]>;
  /**
   * Ends a dirty result's clean-up: removes what the job left (checkpoints unless retained, counters,
   * graph object), each step idempotent, pointer first, object second; then marks it clean.
   */
  cleanUp(jobId: JobId, token: FencingToken): Promise<void>;
  /** Forgets clean results beyond `keep`, oldest first, with their idempotency keys. */
  expire(keep: number, token: FencingToken): Promise<number>;
}

/** Uploaded user bundles. */
export interface JarStore {
  put(name: string, bytes: Uint8Array, entries: readonly string[], token: FencingToken): Promise<JarView>;
  list(): Promise<readonly JarView[]>;
  get(jarId: JarId): Promise<StoredJar>;
  /** Removes the pointer; the object goes once no job references it. */
  delete(jarId: JarId, token: FencingToken): Promise<void>;
}

export interface StoredJar extends JarView {
  readonly objectKey: string;
  readonly digest: Digest;
}

export interface JobMasterStart {
  readonly cancelRequested: boolean;
  /** True: the job was stored before, and may run under an earlier leader. False: it is new. */
  readonly recovered: boolean;
}

/** Starts one job's master for this term of leadership. */
export interface JobMasterFactory {
  start(graph: JobGraph, token: FencingToken, options: JobMasterStart): JobMasterHandle;
}

/** Runs a user's program in isolation to learn its graph. */
export interface ProgramPlanner {
  /** Rejects with `PROGRAM` (does not load, throws, hangs, builds nothing) or `INVALID_ARGUMENT`. */
  inspect(name: string, bytes: Uint8Array): Promise<{ readonly entries: readonly string[] }>;
  plan(jar: StoredJar, request: RunJarRequest, jobId: JobId): Promise<JobGraph>;
}
