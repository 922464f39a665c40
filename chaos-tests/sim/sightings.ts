import type { Entry, Transaction } from '../../ha/coordination/coordination.ts';
import type { ChangeSet } from '../../ha/coordination/revision-engine.ts';
import type { CheckpointAck, SlotDeployment } from '../../src/contracts/task.ts';
import type { AttemptId, DeploymentId, FencingToken, JobId } from '../../src/kernel/ids.ts';
import type { OperationView } from '../../src/contracts/dispatcher-gateway.ts';
import type { TriggerId } from '../../src/contracts/operations.ts';
import type { SimTransaction } from './engine/committed-output.ts';
import type { SeenByTask } from './engine/records.ts';

/** What the checkers are shown, when it happens. All are optional: a checker looks at what it judges. */
export interface Sightings {
  /** A change of coordination: by whom, and who led right before it. `writer` undefined: a lease expired. */
  changed(change: {
    readonly set: ChangeSet;
    readonly writer: string | undefined;
    readonly transaction: Transaction | undefined;
    readonly leaderBefore: Entry | undefined;
  }): void;
  objectDeleted(key: string): void;
  /** A worker has answered a call without an error. `highest`: the highest token that it had obeyed before. */
  workerObeyed(call: {
    readonly worker: string;
    readonly method: string;
    readonly token: FencingToken;
    readonly highest: FencingToken;
    readonly request: unknown;
  }): void;
  /** A leader sends tasks. */
  deploying(by: string, token: FencingToken, deployment: SlotDeployment): void;
  triggering(by: string, token: FencingToken, jobId: JobId, deployment: DeploymentId, checkpointId: number): void;
  engineOpened(worker: string, slotIndex: number, jobId: JobId): void;
  engineClosed(worker: string, slotIndex: number, jobId: JobId): void;
  workerDied(worker: string): void;
  taskStarted(worker: string, deployment: SlotDeployment, attemptId: AttemptId): void;
  /**
   * A task has answered for a checkpoint. `final`: which it took at or after the end of its input, or with which
   * the job stops. `seen`: what it had seen by then.
   */
  checkpointAcked(ack: CheckpointAck, final: boolean, seen: SeenByTask): void;
  /** A task is told that a checkpoint was given up. */
  checkpointAborted(deployment: DeploymentId, jobId: JobId, checkpointId: number): void;
  outputCommitted(jobId: JobId, transaction: SimTransaction, by: DeploymentId, checkpointId: number | undefined): void;
  submissionAsked(jobId: JobId): void;
  /** By a master; more often than it was asked when the network doubles it. */
  submissionReceived(jobId: JobId): void;
  operationReceived(triggerId: TriggerId): void;
  submissionAnswered(jobId: JobId, answered: { readonly jobId: JobId } | { readonly code: string }): void;
  cancelAnswered(jobId: JobId): void;
  operationAsked(jobId: JobId, triggerId: TriggerId): void;
  operationAnswered(jobId: JobId, triggerId: TriggerId, answered: 'begun' | { readonly code: string }): void;
  /** What a client was told of an operation, each time that it was told something. */
  operationSeen(jobId: JobId, triggerId: TriggerId, view: OperationView): void;
  leaderSeen(process: string, token: FencingToken | undefined): void;
}

export type SightingName = keyof Sightings;

export interface Violation {
  /** Of the protocol's list; 0: the process broke by itself. */
  readonly invariant: number;
  readonly atMs: number;
  readonly message: string;
}
