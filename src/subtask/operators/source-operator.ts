import type { PollStatus, Source, SourceReader } from '../../api/source.ts';
import type { OperatorStateBackend, SnapshotOptions } from '../../state/ports.ts';
import { present } from '../../kernel/assert.ts';
import type { ChainCollector } from '../chain.ts';
import { operatorError, type OperatorSite } from '../operator-error.ts';
import { CheckpointedState } from './checkpointed-state.ts';
import { cutState, openOperatorState } from './operator-state.ts';
import { type OperatorContext, type OperatorCut, RESOLVED, type SubtaskOperator } from './operator.ts';

const SPLITS = 'splits';

/**
 * Runs a reader over this subtask's splits: its share of the graph's on a fresh start, those of the
 * checkpoint after a restore, where having none means that there is nothing left to read.
 */
export class SourceOperator implements SubtaskOperator {
  readonly site: OperatorSite;
  private reader: SourceReader<unknown, unknown> | undefined;
  private state: OperatorStateBackend | undefined;
  private checkpointed: CheckpointedState | undefined;

  constructor(
    private readonly source: Source<unknown, unknown>,
    /** All splits of the operator, from the graph. */
    private readonly allSplits: readonly unknown[],
    private readonly context: OperatorContext,
  ) {
    this.site = context.site;
  }

  async open(): Promise<void> {
    this.state = await openOperatorState(this.context);
    const splits = this.initialSplits(this.state);
    const reader = this.createReader();
    this.checkpointed = await CheckpointedState.open(this.context, reader);
    try {
      // A copy: readers move positions inside their splits, and the graph's are shared.
      await reader.open(structuredClone(splits));
    } catch (error) {
      throw operatorError(this.site, 'to open its reader', error);
    }
  }

  /** Errors of the chain pass through: they name their own operator. */
  poll(out: ChainCollector, recordsMax: number): PollStatus {
    try {
      const status = (this.reader as SourceReader<unknown, unknown>).poll(out, recordsMax);
      // A reader that swallows what its collector throws must not turn a failure into a loss.
      if (out.failure !== undefined) throw out.failure;
      return status;
    } catch (error) {
      if (out.failure !== undefined) throw out.failure;
      throw operatorError(this.site, 'to read', error);
    }
  }

  async available(): Promise<void> {
    try {
      await this.reader?.available();
    } catch (error) {
      throw operatorError(this.site, 'to wait for input', error);
    }
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    const state = present(this.state, 'the state of an open source');
    this.checkpointed?.cut(checkpointId);
    let splits: readonly unknown[];
    try {
      splits = structuredClone(present(this.reader, 'the reader of an open source').snapshot());
    } catch (error) {
      throw operatorError(this.site, 'to snapshot its splits', error);
    }
    state.update(SPLITS, 'SPLIT', splits);
    return cutState(this.context, { operator: [state, this.checkpointed?.backend] }, checkpointId, options);
  }

  checkpointCompleted(): Promise<void> {
    return RESOLVED;
  }

  finish(): Promise<void> {
    return RESOLVED;
  }

  async close(): Promise<void> {
    await this.reader?.close();
    this.reader = undefined;
  }

  private createReader(): SourceReader<unknown, unknown> {
    try {
      this.reader = this.source.createReader(this.context.runtime);
      return this.reader;
    } catch (error) {
      throw operatorError(this.site, 'to open its reader', error);
    }
  }

  private initialSplits(state: OperatorStateBackend): readonly unknown[] {
    if (this.context.restore !== undefined) return state.restored(SPLITS);
    const { parallelism, subtaskIndex } = this.context.runtime;
    return this.allSplits.filter((_, i) => i % parallelism === subtaskIndex);
  }
}
