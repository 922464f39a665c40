import type { CommitContext } from '../../api/sink.ts';
import type { RuntimeContext } from '../../api/functions.ts';
import type { KeyGroupRange } from '../../contracts/key-groups.ts';
import type { OperatorSnapshot } from '../../contracts/state-handles.ts';
import type { Clock } from '../../kernel/clock.ts';
import type { Logger } from '../../kernel/log.ts';
import type { Random } from '../../kernel/random.ts';
import type { SnapshotOptions } from '../../state/ports.ts';
import type { OperatorSite } from '../operator-error.ts';
import type { OperatorScope, StateBackendFactory } from '../state-backend-factory.ts';

/** An operator with a life of its own: state to restore and snapshot, files, transactions. */
export interface SubtaskOperator {
  readonly site: OperatorSite;
  /** Restores and opens. */
  open(): Promise<void>;
  /** Undefined when it can take records, else a promise to wait for. */
  ready?(): Promise<void> | undefined;
  /**
   * Cuts at this instant; undefined when there is nothing to write or wait for. A throw declines the checkpoint.
   * A savepoint's state is written whole, and refers to nothing that a checkpoint wrote.
   */
  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut | undefined;
  /** Everything up to this checkpoint is durable. Resolves when what depends on it is done; reports its own failures. */
  checkpointCompleted(checkpointId: number): Promise<void>;
  /** The checkpoint will never complete: its state need not be kept in mind. */
  checkpointAborted?(checkpointId: number): void;
  /** No record follows and no checkpoint will: makes all output final. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

/** What an operator fixed in its part of a snapshot, on its way to the store. */
export interface OperatorCut {
  /** Called once. Undefined when it turns out that there is no state. */
  write(signal: AbortSignal): Promise<WrittenCut | undefined>;
  /** Instead of `write`, when the snapshot failed elsewhere. */
  discard(): void;
}

export interface WrittenCut {
  readonly snapshot: OperatorSnapshot;
  readonly bytes: number;
}

/** What an operator may know and use. */
export interface OperatorContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly runtime: RuntimeContext & CommitContext;
  readonly site: OperatorSite;
  readonly scope: OperatorScope;
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  readonly stateBackends: StateBackendFactory;
  /** Undefined on a fresh start; without entries for an operator that had no state. */
  readonly restore: { readonly checkpointId: number; readonly snapshot: OperatorSnapshot | undefined } | undefined;
  /** Aborts when the task ends, however it does. */
  readonly signal: AbortSignal;
  /** The operator can no longer keep its promises: the task must fail. */
  readonly fail: (error: unknown) => void;
}

export const RESOLVED: Promise<void> = Promise.resolve();
