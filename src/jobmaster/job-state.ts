import type { ExecutionState, JobStatus, TerminalJobStatus } from '../contracts/job-status.ts';
import type { CompletedCheckpoint } from '../contracts/checkpoint.ts';
import type { RestartStrategyConfig } from '../contracts/job-graph.ts';
import type { Slot } from '../contracts/slots.ts';
import type { AttemptReport } from '../contracts/task.ts';
import type { WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { TaskKey } from '../graph/execution-graph.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type {
  AllocationId,
  AttemptId,
  DeploymentId,
  FencingToken,
  JobId,
  TaskManagerId,
  VertexId,
} from '../kernel/ids.ts';
import type { RestartHistory } from './restart-strategy.ts';

/** What never changes while a master works on its job. */
export interface JobConstants {
  readonly jobId: JobId;
  readonly token: FencingToken;
  readonly strategy: RestartStrategyConfig;
  /** By task index: the key, the slot number that the task needs, and its pipelined region. */
  readonly tasks: readonly {
    readonly key: TaskKey;
    readonly vertexId: VertexId;
    readonly subtaskIndex: number;
    readonly slot: number;
    readonly name: string;
    readonly region: number;
  }[];
  readonly slotsNeeded: number;
  readonly slotRequestTimeoutMs: number;
  readonly slotGraceMs: number;
  readonly cancelTimeoutMs: number;
  readonly registrationGraceMs: number;
  /** How long a new master waits for workers to show what they run, before it deploys what was not shown. */
  readonly adoptionTimeoutMs: number;
}

/** One try at running a subtask, and where. */
export interface Attempt {
  readonly attemptId: AttemptId;
  readonly attemptNumber: number;
  readonly deployment: DeploymentId;
  readonly allocationId: AllocationId;
  readonly taskManagerId: TaskManagerId;
  readonly host: string;
}

export interface TaskState {
  readonly state: ExecutionState;
  /** The newest attempt; kept after it has ended, for people. */
  readonly attempt: Attempt | undefined;
  /** The highest attempt number ever seen of this subtask, of earlier terms too; -1 before the first. */
  readonly lastAttemptNumber: number;
  readonly endOfData: boolean;
  /** The end of its data was made, by a stop of the job: only the savepoint of that may be followed by its end. */
  readonly drained: boolean;
  /** FAILED because of another's end: nothing of its own went wrong, and its slot is as good as after a cancellation. */
  readonly peerLost: boolean;
  /** Reports of its worker in a row that did not list the attempt although the worker had taken it. */
  readonly missing: number;
  /** When the newest attempt entered each state, epoch ms. */
  readonly enteredMs: Readonly<Partial<Record<ExecutionState, number>>>;
}

/**
 * A slot that we hold. `idle`: nothing of ours runs there. `sent`: tasks were sent and nobody has
 * answered, so what runs there is unknown. `busy`: the worker has taken the tasks.
 */
export interface HeldSlot {
  readonly slot: Slot;
  readonly slotNumber: number;
  readonly use: 'idle' | 'sent' | 'busy';
  /** While `sent`: what was sent. Tasks of other regions and older deployments may run there as well. */
  readonly sent?: DeploymentId;
}

/** What the tasks start from. */
export type RestorePoint =
  | { readonly kind: 'fresh' }
  | {
      readonly kind: 'checkpoint';
      readonly checkpoint: CompletedCheckpoint;
      /** False: named by the user, of another job or a savepoint. */
      readonly own: boolean;
      readonly allowNonRestoredState: boolean;
      /** The job has stopped with a savepoint: it goes on only to finish. */
      readonly stopped: boolean;
    };

export type StopReason =
  | {
      readonly kind: 'restart';
      readonly restartAtMs: number;
      /**
       * So far all that is known is that tasks have lost others. When the restart is due should the death of a worker turn
       * out to be the reason; undefined once something else is.
       */
      readonly ifWorkerLostAtMs?: number | undefined;
    }
  | { readonly kind: 'fail'; readonly error: ErrorInfo }
  | { readonly kind: 'cancel' };

/**
 * Where the job is. Each phase carries what it owns and no more.
 *
 *   adopting -> executing
 *       v
 *   restoring -> acquiring -> executing -> ended
 *       ^  \________________     |   \
 *       |   restoreBackoff  \    v    v
 *       +------ backoff <--- stopping -> ended
 *
 * Between `stopping` and `acquiring` a phase is about the regions in `restarting`; the others go on.
 */
export type JobPhase =
  /** A new master collects what workers hold of the job. Nothing is ended, deployed or triggered yet. */
  | {
      readonly kind: 'adopting';
      readonly found: ReadonlyMap<AttemptId, FoundAttempt>;
      /** Slots taken over from the earlier term. */
      readonly slots: ReadonlyMap<AllocationId, Slot>;
      /** Nobody else is waited for. */
      readonly settled: boolean;
      readonly settleAtMs: number;
      readonly restore: RestorePoint | undefined;
      /** How often the newest checkpoint could not be read, and why. */
      readonly failures: number;
      readonly reason: string | undefined;
      readonly retryAtMs: number;
    }
  /** Reading the newest checkpoint. */
  | { readonly kind: 'restoring'; readonly failures: number }
  /** It could not be read: an explicit state of error, with another try to come. */
  | { readonly kind: 'restoreBackoff'; readonly failures: number; readonly reason: string }
  /** Slots are asked for; `request` is undefined once they are there and only leftovers are waited for. */
  | {
      readonly kind: 'acquiring';
      readonly restore: RestorePoint;
      readonly request: { readonly id: number; readonly count: number; readonly grace: boolean } | undefined;
    }
  | { readonly kind: 'executing'; readonly deployment: DeploymentId }
  /**
   * What runs is being ended. `registering`: workers are given time to show what they still run of an
   * older term. `overdue`: the deadline has passed and the slots of those still alive were taken away.
   */
  | { readonly kind: 'stopping'; readonly then: StopReason; readonly wait: 'registering' | 'ending' | 'overdue' }
  | { readonly kind: 'backoff'; readonly restartAtMs: number; readonly ifWorkerLostAtMs?: number | undefined }
  | { readonly kind: 'ended'; readonly status: TerminalJobStatus; readonly error: ErrorInfo | undefined };

/** An attempt of an earlier term, as its worker shows it. */
export interface FoundAttempt {
  readonly report: AttemptReport;
  readonly taskManagerId: TaskManagerId;
}

export interface JobState {
  readonly phase: JobPhase;
  /** Regions that are being ended or await deployment. Empty while executing. */
  readonly restarting: ReadonlySet<number>;
  readonly status: JobStatus;
  /** When the job entered each state, epoch ms; 0 if never. */
  readonly enteredMs: Readonly<Record<JobStatus, number>>;
  readonly tasks: readonly TaskState[];
  /** The newest attempt of each task, in whatever deployment it is. */
  readonly indexOf: ReadonlyMap<AttemptId, number>;
  readonly slots: ReadonlyMap<AllocationId, HeldSlot>;
  /** Slots being given back, ours and leftovers of older terms: what ran there may not have ended yet. */
  readonly releasing: ReadonlyMap<AllocationId, TaskManagerId>;
  /** Workers said to be dead or cut off that have not registered again. */
  readonly lost: ReadonlySet<TaskManagerId>;
  readonly deployments: number;
  readonly requests: number;
  readonly restarts: number;
  readonly failures: RestartHistory;
  /** Timers of an earlier generation mean nothing. */
  readonly timer: number;
}

export type JobEvent =
  | { readonly kind: 'start'; readonly cancelRequested: boolean; readonly adopt?: boolean }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'timer'; readonly generation: number }
  | { readonly kind: 'restored'; readonly restore: RestorePoint }
  /** `permanent`: no retry can help, because the user asked for what cannot be. */
  | { readonly kind: 'restoreFailed'; readonly error: ErrorInfo; readonly permanent: boolean }
  | { readonly kind: 'slotsGranted'; readonly request: number; readonly slots: readonly Slot[] }
  | {
      readonly kind: 'slotsDenied';
      readonly request: number;
      readonly error: ErrorInfo;
      /** All slots of the cluster, as the provider said last. */
      readonly clusterSlots: number | undefined;
    }
  | { readonly kind: 'slotReleased'; readonly allocationId: AllocationId }
  | { readonly kind: 'deployAccepted'; readonly deployment: DeploymentId; readonly allocationId: AllocationId }
  | {
      readonly kind: 'deployFailed';
      readonly deployment: DeploymentId;
      readonly allocationId: AllocationId;
      readonly error: ErrorInfo;
    }
  | { readonly kind: 'cancelFailed'; readonly allocationIds: readonly AllocationId[]; readonly error: ErrorInfo }
  | { readonly kind: 'taskReport'; readonly report: AttemptReport }
  | {
      readonly kind: 'workerReport';
      readonly registered: boolean;
      readonly report: WorkerReport;
      /** While adopting: the job's slots on that worker, taken over. */
      readonly claimed?: readonly Slot[];
    }
  /** All workers known from before the term have shown what they hold, or are dead. */
  | { readonly kind: 'workersSettled' }
  | { readonly kind: 'workerLost'; readonly taskManagerId: TaskManagerId; readonly reason: string }
  /** Somebody else found that the job cannot go on like this, e.g. too many checkpoints failed. */
  | { readonly kind: 'failover'; readonly error: ErrorInfo };

export type JobEffect =
  | { readonly kind: 'restore' }
  | { readonly kind: 'requestSlots'; readonly request: number; readonly count: number; readonly timeoutMs: number }
  | { readonly kind: 'abandonRequest'; readonly request: number }
  | { readonly kind: 'releaseSlots'; readonly allocationIds: readonly AllocationId[]; readonly reason: string }
  | {
      readonly kind: 'deploy';
      readonly deployment: DeploymentId;
      readonly restore: RestorePoint;
      readonly regions: ReadonlySet<number>;
      readonly oldestLive: DeploymentId;
    }
  /** Tasks of an earlier term go on under this one. `complete`: all of the job's. */
  | { readonly kind: 'adopt'; readonly restore: RestorePoint; readonly complete: boolean }
  /** Why not all of an earlier term's tasks could be adopted. */
  | { readonly kind: 'notAdopted'; readonly reason: string }
  /** The run is over for the checkpoints: nothing more is triggered, what is in flight is aborted. */
  | { readonly kind: 'stopCheckpoints'; readonly reason: string; readonly partly: boolean }
  | {
      readonly kind: 'cancelTasks';
      readonly slot: Slot;
      readonly attemptIds: readonly AttemptId[];
    }
  /** A task of the newest deployment changed. */
  | { readonly kind: 'taskChanged'; readonly index: number }
  | {
      readonly kind: 'recordFailure';
      readonly error: ErrorInfo;
      readonly taskIndex: number | undefined;
      readonly taskManagerId: TaskManagerId | undefined;
    }
  | { readonly kind: 'timer'; readonly generation: number; readonly delayMs: number }
  /** What the job goes by is known: nothing of it runs any more. */
  | { readonly kind: 'ended'; readonly status: TerminalJobStatus; readonly error: ErrorInfo | undefined };
