import type { JobId, TaskManagerId } from '../kernel/ids.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { TerminalJobStatus } from './job-status.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline } from './task.ts';
import type { CheckpointOperation } from './operations.ts';
import type { JobDetailsView } from './views.ts';

/** How a job ended, with what history keeps of it. */
export interface JobOutcome {
  readonly jobId: JobId;
  readonly status: TerminalJobStatus;
  readonly error: ErrorInfo | undefined;
  readonly details: JobDetailsView;
}

/** One job's master, as the Dispatcher holds it. */
export interface JobMasterHandle extends Closeable {
  readonly jobId: JobId;
  /**
   * Resolves with the outcome once every task has ended; stays pending when the master is closed
   * before (leadership lost): that is not an end of the job.
   */
  readonly terminated: Promise<JobOutcome>;
  /** Idempotent. The job ends CANCELED unless it has ended otherwise first. */
  cancel(): void;
  /** Its record is durable; its result will be. Idempotent by trigger id. */
  requestCheckpoint(operation: CheckpointOperation): void;
  details(): JobDetailsView;
  /** No decisions and no commands until `resume` (leadership in doubt). */
  suspend(): void;
  resume(): void;
  /** False: the attempt belongs to no present deployment; its worker should end it. */
  updateTaskState(report: AttemptReport): boolean;
  acknowledgeCheckpoint(ack: CheckpointAck, from?: TaskManagerId): void;
  declineCheckpoint(decline: CheckpointDecline): void;
  /**
   * Stops deciding; never cancels tasks on workers. Idempotent. After `terminated` it also lets workers
   * forget the job, so it is closed once the outcome is durable.
   */
  close(): Promise<void>;
}
