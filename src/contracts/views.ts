import type { AttemptId, JarId, JobId, OperatorId, TaskManagerId, VertexId } from '../kernel/ids.ts';
import type { CheckpointKind } from './checkpoint.ts';
import type { JobConfig, JobGraph, Partitioner } from './job-graph.ts';
import type { ExecutionState, JobStatus } from './job-status.ts';
import type { IoMetrics } from './task.ts';
import type { HardwareDescription } from './task-manager-gateway.ts';

/**
 * What REST and the dashboard show, as plain data with the product's own names; the REST room gives
 * them Flink's field names. Times are epoch milliseconds, -1 where something has not happened.
 */

export type StateCounts = Readonly<Record<ExecutionState, number>>;

export interface JobOverviewView {
  readonly jobId: JobId;
  readonly name: string;
  readonly status: JobStatus;
  readonly startMs: number;
  readonly endMs: number;
  readonly durationMs: number;
  readonly lastModificationMs: number;
  /** Over all subtasks. */
  readonly tasks: StateCounts;
}

export interface SubtaskView {
  readonly index: number;
  readonly state: ExecutionState;
  readonly attemptNumber: number;
  readonly attemptId: AttemptId | undefined;
  readonly taskManagerId: TaskManagerId | undefined;
  readonly host: string | undefined;
  readonly startMs: number;
  readonly endMs: number;
  readonly io: IoMetrics;
}

export interface VertexView {
  readonly id: VertexId;
  readonly name: string;
  /** Chained in it, the head first. */
  readonly operators: readonly OperatorId[];
  readonly slotSharingGroup: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  /** Aggregated from the subtasks as Flink does. */
  readonly status: ExecutionState;
  readonly startMs: number;
  readonly endMs: number;
  readonly durationMs: number;
  readonly tasks: StateCounts;
  readonly io: IoMetrics;
  readonly subtasks: readonly SubtaskView[];
}

export interface JobDetailsView extends JobOverviewView {
  readonly maxParallelism: number;
  /** When the job entered each state, 0 if never. */
  readonly timestamps: Readonly<Record<JobStatus, number>>;
  readonly vertices: readonly VertexView[];
  readonly edges: readonly {
    readonly source: VertexId;
    readonly target: VertexId;
    readonly partitioner: Partitioner;
  }[];
  readonly config: JobConfig;
  readonly exceptions: ExceptionsView;
  readonly checkpoints: CheckpointsView;
  /** How many times the job was restarted, and by which deployments. */
  readonly restarts: number;
  /** What the job waits for now, in words, e.g. `waiting for 2 more slots`; undefined when nothing. */
  readonly waitingFor: string | undefined;
}

export interface ExceptionEntry {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  readonly timestampMs: number;
  readonly taskName: string | undefined;
  readonly taskManagerId: TaskManagerId | undefined;
  readonly location: string | undefined;
}

export interface ExceptionsView {
  readonly root: ExceptionEntry | undefined;
  /** Newest first, bounded. */
  readonly history: readonly ExceptionEntry[];
  readonly truncated: boolean;
}

export type CheckpointStatus = 'IN_PROGRESS' | 'COMPLETED' | 'FAILED';

export interface CheckpointEntry {
  readonly id: number;
  readonly status: CheckpointStatus;
  readonly kind: CheckpointKind;
  readonly triggerMs: number;
  readonly latestAckMs: number;
  readonly endMs: number;
  readonly stateBytes: number;
  readonly acknowledged: number;
  readonly subtasks: number;
  readonly metadataKey: string | undefined;
  readonly discarded: boolean;
  readonly failure: string | undefined;
  /** The job ends with it. */
  readonly stops?: boolean;
  /** Records that barriers overtook and that were stored; undefined: none were. */
  readonly inFlightBytes?: number;
  /** By vertex; what older masters wrote has none. */
  readonly tasks?: Readonly<Record<VertexId, CheckpointTaskEntry>>;
}

export interface CheckpointTaskEntry {
  readonly subtasks: number;
  readonly acknowledged: number;
  readonly latestAckMs: number;
  readonly stateBytes: number;
  readonly inFlightBytes: number;
}

export interface CheckpointsView {
  readonly counts: {
    readonly restored: number;
    readonly total: number;
    readonly inProgress: number;
    readonly completed: number;
    readonly failed: number;
  };
  readonly latestCompleted: CheckpointEntry | undefined;
  readonly latestSavepoint: CheckpointEntry | undefined;
  readonly latestFailed: CheckpointEntry | undefined;
  readonly latestRestored:
    | { readonly id: number; readonly restoreMs: number; readonly isSavepoint: boolean; readonly metadataKey: string }
    | undefined;
  /** Newest first, bounded. */
  readonly history: readonly CheckpointEntry[];
}

export const NO_CHECKPOINTS: CheckpointsView = {
  counts: { restored: 0, total: 0, inProgress: 0, completed: 0, failed: 0 },
  latestCompleted: undefined,
  latestSavepoint: undefined,
  latestFailed: undefined,
  latestRestored: undefined,
  history: [],
};

export interface TaskManagerView {
  readonly id: TaskManagerId;
  readonly rpcAddress: string;
  readonly dataHost: string;
  readonly pid: number;
  readonly slotsTotal: number;
  readonly slotsFree: number;
  readonly lastHeartbeatMs: number;
  readonly hardware: HardwareDescription;
  readonly allocations: readonly { readonly slotIndex: number; readonly jobId: JobId }[];
}

export interface JarView {
  readonly id: JarId;
  readonly name: string;
  readonly uploadedMs: number;
  readonly bytes: number;
  /** Exported functions that can be run, found when it was uploaded. */
  readonly entries: readonly string[];
}

export interface ClusterOverview {
  readonly taskManagers: number;
  readonly slotsTotal: number;
  readonly slotsFree: number;
  readonly jobsRunning: number;
  readonly jobsFinished: number;
  readonly jobsCancelled: number;
  readonly jobsFailed: number;
}

/** The graph as people see it before anything runs. */
export type PlanView = Pick<JobGraph, 'name' | 'vertices' | 'edges'>;
