import type { CheckpointKind, StopMode } from '../contracts/checkpoint.ts';
import type { CheckpointConfig } from '../contracts/job-graph.ts';
import type { TriggerId } from '../contracts/operations.ts';
import type { CheckpointAck, CheckpointDecline } from '../contracts/task.ts';
import type { TaskKey } from '../graph/execution-graph.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId, VertexId } from '../kernel/ids.ts';

/** One subtask of a deployment, as the coordinator sees it. */
export interface RunTask {
  readonly vertexId: VertexId;
  readonly subtaskIndex: number;
  readonly attemptId: AttemptId;
  /** The one in which it was deployed; regions restart by themselves, so tasks of one run may differ. */
  readonly deployment: DeploymentId;
  /** Whom it reads from: all subtasks of a vertex, or some; empty for a source. */
  readonly upstream: readonly (VertexId | { readonly vertexId: VertexId; readonly subtasks: readonly number[] })[];
}

/** A checkpoint or savepoint that somebody asked for, and waits for. */
export interface CheckpointRequest {
  readonly triggerId: TriggerId;
  readonly kind: CheckpointKind;
  readonly full: boolean;
  /** Of a savepoint: where its objects go. */
  readonly location?: string | undefined;
  /** The job ends with it. */
  readonly stop?: StopMode | undefined;
  readonly cancelJob?: boolean | undefined;
}

export type RunTaskStage = 'starting' | 'running' | 'finished';

/** All tasks of the job from when the last of them was deployed, or all were adopted, until one fails. */
export interface Run {
  /** The newest of its tasks: it names the run. */
  readonly deployment: DeploymentId;
  readonly tasks: readonly RunTask[];
  readonly indexOf: ReadonlyMap<TaskKey, number>;
  readonly stages: readonly RunTaskStage[];
  /** True: the subtask has seen the end of all its input and waits for a final checkpoint. */
  readonly atEnd: readonly boolean[];
  readonly running: number;
  readonly finished: number;
  readonly runningAtEnd: number;
  /** When the next periodic checkpoint is due; undefined until every task runs, or without an interval. */
  readonly periodicAtMs: number | undefined;
  /** Not before this, after a final checkpoint or the reservation of an id has failed. */
  readonly notBeforeMs: number;
  /** Final checkpoints that have failed in a row. */
  readonly finalFailures: number;
  /** A checkpoint of this run has completed, so the state of tasks that finish later is known. */
  readonly covered: boolean;
  /** A checkpoint has completed that every task took after the end of its input: no more are needed. */
  readonly finalCompleted: boolean;
  /** The job stopped before this deployment, which is there to finish what that left: its sources read nothing. */
  readonly suspended: boolean;
}

/**
 * A checkpoint that is neither completed nor aborted. `collecting`: barriers flow, acknowledgements
 * come in. `committing`: all are there and its pointer is being written: nothing may abort it now,
 * because its outcome may already be decided.
 */
export interface PendingCheckpoint {
  readonly id: number;
  readonly kind: CheckpointKind;
  readonly deployment: DeploymentId;
  readonly stage: 'collecting' | 'committing';
  /** Undefined: the coordinator's own idea. */
  readonly request: CheckpointRequest | undefined;
  /** The tasks end with it. */
  readonly stop: StopMode | undefined;
  /** Every task had seen the end of its input when it was triggered. */
  readonly final: boolean;
  readonly triggeredMs: number;
  readonly deadlineMs: number;
  /** By task index of the run; true where an acknowledgement is needed (not of tasks that had finished). */
  readonly expected: readonly boolean[];
  readonly acks: readonly (CheckpointAck | undefined)[];
  readonly missing: number;
}

export interface CoordinatorState {
  readonly config: CheckpointConfig;
  /** `halted`: a store refused our token. Nothing is ever done again. */
  readonly life: 'open' | 'halted';
  readonly run: Run | undefined;
  readonly pending: ReadonlyMap<number, PendingCheckpoint>;
  /** Asked for and not yet begun, in order. */
  readonly requests: readonly CheckpointRequest[];
  /** The deployment for which an id is being reserved. */
  readonly reserving: DeploymentId | undefined;
  /** The highest id ever used by this coordinator. */
  readonly lastId: number;
  readonly latestCompletedId: number | undefined;
  readonly lastEndMs: number;
  readonly consecutiveFailures: number;
  /**
   * Newest last, bounded. Late acknowledgements are discarded only of `aborted` ones: what belongs to a
   * `doubtful` one (given up without certainty) may be referenced.
   */
  readonly ended: readonly { readonly id: number; readonly outcome: 'completed' | 'aborted' | 'doubtful' }[];
}

export type CoordinatorEvent =
  | {
      readonly kind: 'runStarted';
      readonly deployment: DeploymentId;
      readonly tasks: readonly RunTask[];
      readonly suspended?: boolean;
      /** Tasks of it took part in the newest completed checkpoint and go on since: what they left is in it. */
      readonly continues?: boolean;
    }
  | { readonly kind: 'requested'; readonly request: CheckpointRequest }
  | {
      readonly kind: 'taskChanged';
      readonly deployment: DeploymentId;
      readonly index: number;
      readonly stage: RunTaskStage;
      readonly atEnd: boolean;
      /** Its data ended for a stop of the job. */
      readonly drained?: boolean;
    }
  /** `partly`: other tasks go on, and are told of what is aborted. */
  | { readonly kind: 'runStopped'; readonly reason: string; readonly partly?: boolean }
  /** State was restored from this one, or it was found to be the newest when the term began. */
  | { readonly kind: 'restored'; readonly checkpointId: number }
  | { readonly kind: 'tick' }
  | { readonly kind: 'reserved'; readonly deployment: DeploymentId; readonly id: number }
  | { readonly kind: 'reserveFailed'; readonly deployment: DeploymentId }
  | { readonly kind: 'triggerFailed'; readonly id: number; readonly error: ErrorInfo }
  | { readonly kind: 'acknowledged'; readonly ack: CheckpointAck }
  | { readonly kind: 'declined'; readonly decline: CheckpointDecline }
  /** The pointer is durable. */
  | { readonly kind: 'committed'; readonly id: number }
  /** It is certain that no pointer was written; or, with `keepObjects`, nearly so. */
  | { readonly kind: 'commitFailed'; readonly id: number; readonly error: ErrorInfo; readonly keepObjects: boolean }
  | { readonly kind: 'fenced' };

export type CoordinatorEffect =
  | { readonly kind: 'reserve'; readonly deployment: DeploymentId }
  | {
      readonly kind: 'trigger';
      readonly checkpoint: PendingCheckpoint;
      /** Task indexes that begin the checkpoint. */
      readonly targets: readonly number[];
    }
  /** All acknowledgements are there: metadata object, then pointer. */
  | { readonly kind: 'commit'; readonly checkpoint: PendingCheckpoint; readonly run: Run }
  | {
      readonly kind: 'completed';
      readonly checkpoint: PendingCheckpoint;
      /** The deployment that is to be told; undefined when it has stopped meanwhile. */
      readonly notify: DeploymentId | undefined;
    }
  | {
      readonly kind: 'aborted';
      readonly checkpoint: PendingCheckpoint;
      readonly reason: ErrorInfo;
      readonly notify: DeploymentId | undefined;
      readonly latestCompletedId: number | undefined;
    }
  /** Objects of checkpoints that will never complete. */
  | { readonly kind: 'discard'; readonly acks: readonly CheckpointAck[] }
  | { readonly kind: 'subsume' }
  /** What was asked for will not be. */
  | { readonly kind: 'requestFailed'; readonly request: CheckpointRequest; readonly error: ErrorInfo }
  /** More checkpoints in a row have failed than the job bears. */
  | { readonly kind: 'failover'; readonly error: ErrorInfo }
  /** Send `tick` then; replaces the wake-up asked for before. */
  | { readonly kind: 'wake'; readonly atMs: number | undefined };

export interface CoordinatorStep {
  readonly state: CoordinatorState;
  readonly effects: readonly CoordinatorEffect[];
}

export type AckOutcome = 'acked' | 'duplicate' | 'late' | 'unknown';
