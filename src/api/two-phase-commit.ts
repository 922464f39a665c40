import { compareDeployments, type DeploymentId } from '../kernel/ids.ts';
import type { RuntimeContext } from './functions.ts';
import type { CommitContext, CommitRequest, TwoPhaseCommitSink, TwoPhaseCommitWriter } from './sink.ts';

/**
 * What was pre-committed, with the deployment and the checkpoint that it was pre-committed for. Plain data:
 * it is part of the checkpoint, and may be committed by another process, years later from a savepoint.
 */
export interface PreCommitted<Committable> {
  /** `<token>-<n>`; see {@link CommitContext}. */
  readonly deployment: string;
  readonly checkpointId: number;
  readonly committable: Committable;
}

/**
 * How a commit comes about. `announced`: the checkpoint's completion was announced to the subtask that
 * made it. `restored`: a later attempt found it in the checkpoint that it starts from; whether it was
 * committed before is not known.
 */
export type CommitReason = 'announced' | 'restored';

/**
 * The base of sinks on anything that can keep a transaction open, make it durable while nobody sees it, and
 * then make it visible in one step that may be repeated: Flink's `TwoPhaseCommitSinkFunction`.
 *
 * One object serves one attempt of one subtask. The life of a transaction:
 *
 *     begin -> write* -> flush -> preCommit -> (the checkpoint completes) -> commit
 *                     \-> abort: the attempt ends before the next checkpoint
 *
 * What the base keeps, so that an author need not:
 *
 *   X1. A cut is synchronous: a record written after `preCommit` was called belongs to the next transaction,
 *       which `begin`s while the one before may still be flushed. Hence several can be under way.
 *   X2. What was pre-committed is never aborted by the attempt that did it. Its checkpoint may have
 *       completed without our knowing, and then a later attempt commits it.
 *   X3. Each commit carries the deployment and the checkpoint it was pre-committed for.
 *   X4. `abortLeftovers` is called only when all subtasks of this deployment are known to have committed
 *       what they restored, so nothing it finds of older deployments can still be wanted.
 *
 * What an author must keep:
 *
 *   Y1. `commit` is idempotent, and safe while another process commits the same: after a failover the old
 *       attempt and the new one may both do it.
 *   Y2. Names of transactions are never used again: put `context.deployment` and something random in them.
 *   Y3. Where the outside store can compare and set, refuse what is older: keep (deployment, checkpoint) of
 *       the newest commit with the data, and throw `FencedError` for a smaller one. A commit so refused
 *       is not tried again.
 *
 * `Committable` must be plain data (it is stored); `Transaction` is anything.
 */
export abstract class TwoPhaseCommitSinkFunction<T, Transaction, Committable> {
  /** Called first. Reject here when the sink cannot work. */
  async open(): Promise<void> {}

  /** A new transaction for the records from here on. Called with the first one; do slow things later. */
  abstract begin(): Transaction;

  /** Takes one record; must not wait. What fails later is thrown by a later call. */
  abstract write(transaction: Transaction, value: T): void;

  /** Undefined when more can be written now, else a promise to wait for: backpressure. */
  ready(): Promise<void> | undefined {
    return undefined;
  }

  /** Sends out what `write` has gathered. Called once for each transaction that is pre-committed. */
  async flush(_transaction: Transaction): Promise<void> {}

  /**
   * Makes the transaction durable and keeps it invisible; resolves with what `commit` needs, in as many
   * pieces as it likes (none: nothing to commit). A rejection fails the task, and its records are read again.
   */
  abstract preCommit(transaction: Transaction, request: CommitRequest): Promise<readonly Committable[]>;

  /**
   * Makes everything in `committables` visible, for good (Y1). A rejection is tried again a bounded number
   * of times; after that the task fails, and its next attempt commits again.
   */
  abstract commit(committables: readonly PreCommitted<Committable>[], reason: CommitReason): Promise<void>;

  /** Throws away a transaction that was never pre-committed. Not called after a crash. */
  abstract abort(transaction: Transaction): Promise<void>;

  /**
   * Throws away what dead attempts left behind: transactions of this job for which {@link isLeftover} says
   * so. Called once in the life of an attempt (X4); a rejection is logged, not repeated.
   */
  async abortLeftovers(): Promise<void> {}

  async close(): Promise<void> {}
}

/** Makes a sink of a function for each attempt of each subtask. */
export function twoPhaseCommitSink<T, Transaction, Committable>(
  name: string,
  create: (context: RuntimeContext & CommitContext) => TwoPhaseCommitSinkFunction<T, Transaction, Committable>,
): TwoPhaseCommitSink<T, PreCommitted<Committable>> {
  return {
    name,
    twoPhaseCommit: true,
    createWriter: (context) => new TransactionWriter(create(context), context),
  };
}

/**
 * Whether a transaction that names `deployment` and `subtaskIndex` was left by an attempt that this one has
 * replaced. Each subtask answers for its own index, because others may go on under an older deployment when
 * only a part of the job was restarted; indices that no longer exist are shared out.
 */
export function isLeftover(
  found: { readonly deployment: string; readonly subtaskIndex: number },
  { deployment, subtaskIndex, parallelism }: RuntimeContext & CommitContext,
): boolean {
  if (compareDeployments(found.deployment as DeploymentId, deployment as DeploymentId) >= 0) return false;
  const heir = found.subtaskIndex < parallelism ? found.subtaskIndex : found.subtaskIndex % parallelism;
  return heir === subtaskIndex;
}

class TransactionWriter<T, Transaction, Committable> implements TwoPhaseCommitWriter<T, PreCommitted<Committable>> {
  private current: { readonly transaction: Transaction } | undefined;
  /**
   * What is known of the other subtasks: nothing; a commit came; and it came from a completed checkpoint, because
   * another cut followed, and none follows the commit at the end of a job that takes no checkpoints. X4
   */
  private proof: 'none' | 'committed' | 'all opened' = 'none';
  private swept = false;

  constructor(
    private readonly fn: TwoPhaseCommitSinkFunction<T, Transaction, Committable>,
    private readonly context: CommitContext,
  ) {}

  async open(restored: readonly PreCommitted<Committable>[]): Promise<void> {
    await this.fn.open();
    if (restored.length > 0) await this.fn.commit(restored, 'restored');
  }

  write(value: T): void {
    this.current ??= { transaction: this.fn.begin() };
    this.fn.write(this.current.transaction, value);
  }

  ready(): Promise<void> | undefined {
    return this.fn.ready();
  }

  prepareCommit(checkpointId: number): Promise<readonly PreCommitted<Committable>[]> {
    const cut = this.current; // X1: nothing is awaited before it.
    this.current = undefined;
    if (this.proof === 'committed') this.proof = 'all opened';
    return cut === undefined ? Promise.resolve([]) : this.preCommit(cut.transaction, checkpointId);
  }

  async commit(committables: readonly PreCommitted<Committable>[]): Promise<void> {
    if (committables.length > 0) await this.fn.commit(committables, 'announced');
    if (this.proof === 'none') this.proof = 'committed';
    if (this.proof !== 'all opened' || this.swept) return;
    // Before the call: should it fail, the caller logs it and commits again, which then succeeds.
    this.swept = true;
    await this.fn.abortLeftovers();
  }

  async close(): Promise<void> {
    const { current } = this;
    this.current = undefined;
    try {
      if (current !== undefined) await this.fn.abort(current.transaction); // X2: this one only.
    } finally {
      await this.fn.close();
    }
  }

  private async preCommit(
    transaction: Transaction,
    checkpointId: number,
  ): Promise<readonly PreCommitted<Committable>[]> {
    const { deployment } = this.context;
    await this.fn.flush(transaction);
    const committables = await this.fn.preCommit(transaction, { deployment, checkpointId });
    return committables.map((committable) => ({ deployment, checkpointId, committable })); // X3
  }
}
