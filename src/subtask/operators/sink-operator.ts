import type { Sink, SinkWriter } from '../../api/sink.ts';
import { present } from '../../kernel/assert.ts';
import { operatorError, type OperatorSite, recordError } from '../operator-error.ts';
import type { SnapshotOptions } from '../../state/ports.ts';
import { CheckpointedState } from './checkpointed-state.ts';
import { cutState } from './operator-state.ts';
import { type OperatorContext, type OperatorCut, RESOLVED, type SubtaskOperator } from './operator.ts';

/** A sink without transactions: everything written before a barrier is out before the checkpoint is acknowledged. */
export class SinkOperator implements SubtaskOperator {
  readonly site: OperatorSite;
  private writer: SinkWriter<unknown> | undefined;
  private checkpointed: CheckpointedState | undefined;

  constructor(
    private readonly sink: Sink<unknown>,
    private readonly context: OperatorContext,
  ) {
    this.site = context.site;
  }

  async open(): Promise<void> {
    const writer = this.createWriter();
    this.checkpointed = await CheckpointedState.open(this.context, writer);
    try {
      await writer.open();
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  /** What {@link write} and {@link ready} stand for, without what they do about errors. Once it is open. */
  openWriter(): SinkWriter<unknown> {
    return present(this.writer, 'the writer of an open sink');
  }

  write(value: unknown): void {
    try {
      (this.writer as SinkWriter<unknown>).write(value);
    } catch (error) {
      throw recordError(this.site, 'to write', error, value);
    }
  }

  ready(): Promise<void> | undefined {
    return this.writer?.ready();
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    this.checkpointed?.cut(checkpointId);
    const state = cutState(this.context, { operator: [this.checkpointed?.backend] }, checkpointId, options);
    const flushed = this.flush();
    // Also when the checkpoint is aborted meanwhile: records may be lost, and nothing but a restart replays them.
    flushed.catch((error: unknown) => this.context.fail(error));
    return {
      write: async (signal) => {
        await flushed;
        return state.write(signal);
      },
      discard: () => state.discard(),
    };
  }

  checkpointCompleted(): Promise<void> {
    return RESOLVED;
  }

  finish(): Promise<void> {
    return this.flush();
  }

  async close(): Promise<void> {
    await this.writer?.close();
    this.writer = undefined;
  }

  private createWriter(): SinkWriter<unknown> {
    try {
      this.writer = this.sink.createWriter(this.context.runtime);
      return this.writer;
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  private async flush(): Promise<void> {
    try {
      await present(this.writer, 'the writer of an open sink').flush();
    } catch (error) {
      throw operatorError(this.site, 'to flush', error);
    }
  }
}
