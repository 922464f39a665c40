import type { JarId, JobId } from '../kernel/ids.ts';
import type { JobGraph } from './job-graph.ts';
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
}
