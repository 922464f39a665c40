import type { CheckpointOptions } from '../contracts/checkpoint.ts';
import type {
  AttemptReport,
  CheckpointAck,
  CheckpointDecline,
  DataAddress,
  SlotDeployment,
} from '../contracts/task.ts';
import type { AttemptId, DeploymentId, JobId } from '../kernel/ids.ts';
import type { Closeable } from '../kernel/lifecycle.ts';

/**
 * One slot's engine: runs the subtasks of one job's slot in one thread. It is either on its own worker
 * thread (taskmanager) or inline (mini cluster, simulator); the TaskManager speaks to both through
 * this port, so everything that crosses it is structured-clone data.
 */
export interface SlotRuntimePort extends Closeable {
  /** Where consumers connect to read this slot's output; ready before any task is submitted. */
  readonly dataAddress: DataAddress;
  /** Resolves once the tasks exist (DEPLOYING); their progress comes as events. Idempotent by attempt id. */
  submit(deployment: SlotDeployment): Promise<void>;
  /** Each named attempt ends with a CANCELED event (or the terminal state it reached first). */
  cancel(attemptIds: readonly AttemptId[]): void;
  triggerCheckpoint(request: {
    readonly attemptIds: readonly AttemptId[];
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly timestampMs: number;
    readonly options: CheckpointOptions;
  }): void;
  notifyCheckpointComplete(request: { readonly deployment: DeploymentId; readonly checkpointId: number }): void;
  notifyCheckpointAborted(request: {
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly latestCompletedId: number | undefined;
    /** All older ones with it. */
    readonly andOlder?: boolean | undefined;
  }): void;
  /** Present counters and states of all attempts held, asked with each heartbeat. Never waits for user code:
   *  the threaded host answers from the last report it received. */
  attempts(): readonly AttemptReport[];
  /** Ends everything at once. */
  close(): Promise<void>;
}

export interface SlotRuntimeEvents {
  taskState(report: AttemptReport): void;
  checkpointAck(ack: CheckpointAck): void;
  checkpointDecline(decline: CheckpointDecline): void;
  /** The engine itself is gone (out of memory, crash of the thread): every task it held has failed. */
  crashed(jobId: JobId | undefined, error: Error): void;
}
