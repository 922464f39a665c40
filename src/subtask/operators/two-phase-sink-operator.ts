import type { TwoPhaseCommitSink, TwoPhaseCommitWriter } from '../../api/sink.ts';
import { present } from '../../kernel/assert.ts';
import { isMillraceError } from '../../kernel/errors.ts';
import { type Backoff, retry } from '../../kernel/retry.ts';
import type { OperatorStateBackend, SnapshotOptions } from '../../state/ports.ts';
import { operatorError, type OperatorSite, recordError } from '../operator-error.ts';
import { CheckpointedState } from './checkpointed-state.ts';
import { cutState, openOperatorState } from './operator-state.ts';
import type { OperatorContext, OperatorCut, SubtaskOperator, WrittenCut } from './operator.ts';

const COMMITTABLES = 'committables';
const COMMIT_BACKOFF: Backoff = { initialMs: 50, maxMs: 2_000, multiplier: 2 };
/** Some ten seconds of an unreachable store; after that a restart commits again from the checkpoint. */
const COMMIT_ATTEMPTS_MAX = 10;

/** What was prepared for one checkpoint and is not yet known to be visible. */
interface Prepared {
  readonly checkpointId: number;
  readonly committables: readonly unknown[];
}

/**
 * Runs a two-phase commit sink.
 *
 *   T1. What is committed was part of a completed checkpoint, or the job takes none.
 *   T2. What was prepared stays in the state of every later checkpoint until its commit has resolved,
 *       also when its own checkpoint was aborted: the records in it are behind the source's position.
 *   T3. Commits of one writer run one after the other, in order of their checkpoints.
 *   T4. A failed preparation fails the task: the records it held would be in no transaction.
 *   T5. Every commit carries (deployment, checkpoint id): where the store can compare, it refuses an older one.
 */
export class TwoPhaseSinkOperator implements SubtaskOperator {
  readonly site: OperatorSite;
  private writer: TwoPhaseCommitWriter<unknown, unknown> | undefined;
  private state: OperatorStateBackend | undefined;
  private checkpointed: CheckpointedState | undefined;
  /** Ascending by checkpoint. */
  private prepared: Prepared[] = [];
  /** Resolves when all preparations begun so far have entered `prepared`, in their order. */
  private preparing: Promise<void> = Promise.resolve();
  private lastCheckpointId: number;
  private commitUpTo = 0;
  /** Never rejects. */
  private committing: Promise<void> = Promise.resolve();

  constructor(
    private readonly sink: TwoPhaseCommitSink<unknown, unknown>,
    private readonly context: OperatorContext,
  ) {
    this.site = context.site;
    this.lastCheckpointId = context.restore?.checkpointId ?? 0;
  }

  async open(): Promise<void> {
    this.state = await openOperatorState(this.context);
    const restored = this.state.restored<Prepared>(COMMITTABLES);
    const writer = this.createWriter();
    this.checkpointed = await CheckpointedState.open(this.context, writer);
    try {
      // The writer commits these first: their checkpoint has completed, or it would not be restored. T1
      await writer.open(restored.flatMap(({ committables }) => committables));
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  write(value: unknown): void {
    try {
      (this.writer as TwoPhaseCommitWriter<unknown, unknown>).write(value);
    } catch (error) {
      throw recordError(this.site, 'to write', error, value);
    }
  }

  ready(): Promise<void> | undefined {
    return this.writer?.ready();
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    // The function's state is fixed with the cut of its stream; the committables follow.
    this.checkpointed?.cut(checkpointId);
    const ready = this.prepare(checkpointId);
    const ofFunction = cutState(this.context, { operator: [this.checkpointed?.backend] }, checkpointId, options);
    // Owned here, because an aborted checkpoint never waits for it. T4
    ready.catch((error: unknown) => this.context.fail(error));
    return {
      write: async (signal) => {
        await ready;
        // As of now: commits that resolved meanwhile need not be in it, later preparations must not. T2
        const items = this.prepared.filter((prepared) => prepared.checkpointId <= checkpointId);
        const state = present(this.state, 'the state of an open sink');
        state.update(COMMITTABLES, 'SPLIT', items);
        const own = await cutState(this.context, { operator: [state] }, checkpointId, options).write(signal);
        return joined(own, await ofFunction.write(signal));
      },
      discard: () => ofFunction.discard(),
    };
  }

  /** Rejects never: a commit that cannot be done fails the task. */
  checkpointCompleted(checkpointId: number): Promise<void> {
    this.commitUpTo = Math.max(this.commitUpTo, checkpointId);
    this.committing = this.committing.then(() => this.commitAll()).catch((error: unknown) => this.context.fail(error));
    return this.committing;
  }

  async finish(): Promise<void> {
    const checkpointId = this.lastCheckpointId + 1;
    await this.prepare(checkpointId);
    this.commitUpTo = checkpointId;
    await this.commitAll();
  }

  async close(): Promise<void> {
    // What is under way ends first (the aborted signal stops retries): after this nothing of the attempt runs.
    await this.committing;
    await this.preparing.catch(() => undefined); // reported where it was begun
    await this.writer?.close();
    this.writer = undefined;
  }

  private createWriter(): TwoPhaseCommitWriter<unknown, unknown> {
    try {
      this.writer = this.sink.createWriter(this.context.runtime);
      return this.writer;
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  /** The writer cuts while this is called; the rest waits for earlier preparations. */
  private prepare(checkpointId: number): Promise<void> {
    this.lastCheckpointId = Math.max(this.lastCheckpointId, checkpointId);
    const cut = this.cut(checkpointId);
    const earlier = this.preparing;
    const ready = (async () => {
      // Both are waited for, so that the failure of one leaves no rejection of the other unheard.
      const [committables] = await Promise.all([cut, earlier]);
      if (committables.length > 0) this.prepared.push({ checkpointId, committables });
    })();
    this.preparing = ready;
    return ready;
  }

  private async cut(checkpointId: number): Promise<readonly unknown[]> {
    try {
      return await present(this.writer, 'the writer of an open sink').prepareCommit(checkpointId);
    } catch (error) {
      throw operatorError(this.site, `to prepare checkpoint ${checkpointId}`, error);
    }
  }

  private async commitAll(): Promise<void> {
    await this.preparing;
    for (;;) {
      const next = this.prepared[0];
      if (next === undefined || next.checkpointId > this.commitUpTo) return;
      await this.commit(next); // T3
      this.prepared = this.prepared.filter((prepared) => prepared !== next);
    }
  }

  private async commit({ checkpointId, committables }: Prepared): Promise<void> {
    const { clock, random, log, signal } = this.context;
    const request = { deployment: this.context.runtime.deployment, checkpointId }; // T5
    let attempts = 0;
    try {
      await retry(
        { clock, random },
        {
          backoff: COMMIT_BACKOFF,
          // A sink that says FENCED has refused an older deployment: trying again cannot help.
          retryable: (error) => ++attempts < COMMIT_ATTEMPTS_MAX && !isMillraceError(error, 'FENCED'),
          onRetry: (err, attempt, waitMs) =>
            log.warn({ err, operator: this.site.name, checkpointId, attempt, waitMs }, 'commit failed, trying again'),
          signal,
        },
        async () => present(this.writer, 'the writer of an open sink').commit(committables, request),
      );
    } catch (error) {
      throw operatorError(this.site, `to commit checkpoint ${checkpointId}`, error);
    }
  }
}

function joined(a: WrittenCut | undefined, b: WrittenCut | undefined): WrittenCut | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const operator = [...a.snapshot.operator, ...b.snapshot.operator];
  return { snapshot: { ...a.snapshot, operator }, bytes: a.bytes + b.bytes };
}
