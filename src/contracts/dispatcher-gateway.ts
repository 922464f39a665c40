import type { JarId, JobId } from '../kernel/ids.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { StopMode } from './checkpoint.ts';
import type { ClaimMode, JobGraph } from './job-graph.ts';
import type { TriggerId } from './operations.ts';
import type { ClusterOverview, JarView, JobDetailsView, JobOverviewView, TaskManagerView } from './views.ts';

/**
 * The Dispatcher as REST sees it, in the leader's process. Every method rejects with `NOT_LEADER`
 * when this replica does not lead (or is suspended, or is still recovering): REST answers 503.
 */
export interface DispatcherGateway {
  /** Resolves once the job is durable. The same id or idempotency key again returns the same job. */
  submitJob(graph: JobGraph, options: { readonly idempotencyKey?: string }): Promise<SubmitResult>;

  uploadJar(name: string, bytes: Uint8Array): Promise<JarView>;
  listJars(): Promise<readonly JarView[]>;
  /** Running jobs keep their own reference to the bundle. */
  deleteJar(jarId: JarId): Promise<void>;
  runJar(jarId: JarId, request: RunJarRequest): Promise<SubmitResult>;
  /** The plan that `runJar` would run. */
  planJar(jarId: JarId, request: RunJarRequest): Promise<JobGraph>;

  listJobs(): Promise<readonly JobOverviewView[]>;
  /** Running and ended jobs alike. */
  requestJob(jobId: JobId): Promise<JobDetailsView>;
  /** Resolves once the wish is durable: a failover does not forget it. A job that has ended is a `CONFLICT`. */
  cancelJob(jobId: JobId): Promise<void>;

  /**
   * These resolve with the id of the operation once it is durable; its result is asked for later. `NOT_FOUND` for a
   * job that is not known, `CONFLICT` for one that does not run or is about to end, `INVALID_ARGUMENT` for a target
   * that savepoints cannot be written to.
   */
  triggerSavepoint(jobId: JobId, trigger: SavepointTrigger): Promise<TriggerId>;
  triggerCheckpoint(jobId: JobId, trigger: CheckpointTrigger): Promise<TriggerId>;
  disposeSavepoint(path: string, triggerId?: TriggerId): Promise<TriggerId>;
  /** `NOT_FOUND` for an operation that is not known (any more). */
  requestOperation(jobId: JobId, kind: 'SAVEPOINT' | 'CHECKPOINT', triggerId: TriggerId): Promise<OperationView>;
  requestDisposal(triggerId: TriggerId): Promise<OperationView>;

  clusterOverview(): Promise<ClusterOverview>;
  listTaskManagers(): Promise<readonly TaskManagerView[]>;
}

export interface SubmitResult {
  readonly jobId: JobId;
  readonly outcome: 'created' | 'duplicate';
}

export interface RunJarRequest {
  readonly entryClass?: string;
  readonly programArgs: readonly string[];
  /** Default parallelism of the program's environment. */
  readonly parallelism?: number;
  /** Chosen by the client, for a submission that may be repeated. */
  readonly jobId?: JobId;
  readonly idempotencyKey?: string;
  readonly savepointPath?: string;
  readonly allowNonRestoredState: boolean;
  /** Whose `savepointPath` is from then on. Default: NO_CLAIM. */
  readonly claimMode?: ClaimMode;
}

export interface SavepointTrigger {
  /** Chosen by the client, for a request that may be repeated. */
  readonly triggerId?: TriggerId;
  readonly targetDirectory?: string;
  /** The job ends with the savepoint. */
  readonly stop?: StopMode;
  /** The job is cancelled once the savepoint is complete. */
  readonly cancelJob?: boolean;
}

export interface CheckpointTrigger {
  readonly triggerId?: TriggerId;
  /** It refers to nothing that an earlier one wrote. */
  readonly full: boolean;
}

export type OperationView =
  | { readonly status: 'IN_PROGRESS' }
  | {
      readonly status: 'COMPLETED';
      readonly checkpointId?: number;
      /** Of a savepoint: what a job may be started from. */
      readonly location?: string;
      readonly failure?: ErrorInfo;
    };
