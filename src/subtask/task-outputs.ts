import type { CheckpointBarrier, LatencyMarker } from '../exchange/channel-message.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { SubpartitionWriterListener } from '../exchange/subpartition.ts';
import type { OutputEdge } from './output-edge.ts';

export interface TaskOutputsDeps {
  readonly clock: Clock;
  /** Not more than 0: no batch leaves by time. */
  readonly bufferTimeoutMs: number;
  /** There is room again. */
  readonly wake: () => void;
  /** Flushing by timer failed (a batch over the limit): the task must fail. */
  readonly fail: (error: unknown) => void;
}

/** All of a task's output edges: their room, their batches' patience, and what goes to every consumer. */
export class TaskOutputs implements SubpartitionWriterListener {
  private readonly edges: OutputEdge[] = [];
  /** How many subpartitions are full. An object, for who looks at it after every record. */
  readonly room = { full: 0 };
  private timer: Timer | undefined;
  private dirty = false;
  private closed = false;

  constructor(private readonly deps: TaskOutputsDeps) {}

  add(edge: OutputEdge): void {
    this.edges.push(edge);
  }

  /** True when no subpartition is full. One slow consumer stops the task, as there is no saying who gets the next record. */
  get available(): boolean {
    return this.room.full === 0;
  }

  onFull(): void {
    this.room.full++;
  }

  onAvailable(): void {
    this.room.full--;
    if (this.room.full === 0) this.deps.wake();
  }

  onBuffered(): void {
    this.dirty = true;
    if (this.timer === undefined && this.deps.bufferTimeoutMs > 0 && !this.closed) {
      this.timer = this.deps.clock.schedule(this.deps.bufferTimeoutMs, () => this.flushByTimer());
    }
  }

  /** A slice begins: it is also that of tasks that records reach over lines. */
  beginSlice(deadlineMs: number): void {
    for (const edge of this.edges) edge.deadline(deadlineMs);
  }

  mark(marker: LatencyMarker): void {
    for (const edge of this.edges) edge.mark(marker);
  }

  barrier(barrier: CheckpointBarrier): void {
    for (const edge of this.edges) edge.broadcast({ kind: 'barrier', barrier });
  }

  endOfData(drained: boolean): void {
    for (const edge of this.edges) edge.broadcast({ kind: 'end-of-data', ...(drained ? { drained } : {}) });
  }

  endOfStream(): void {
    this.close();
    for (const edge of this.edges) edge.broadcast({ kind: 'end-of-stream' });
  }

  /** No batch leaves any more by itself. */
  close(): void {
    this.closed = true;
    this.timer?.cancel();
    this.timer = undefined;
  }

  private flush(): void {
    for (const edge of this.edges) edge.flush(false);
    this.dirty = this.edges.some((edge) => edge.buffered);
  }

  private flushByTimer(): void {
    this.timer = undefined;
    try {
      this.flush();
    } catch (error) {
      this.deps.fail(error);
      return;
    }
    // Full queues: what is left goes when there is room, at the latest with the next round.
    if (this.dirty) this.onBuffered();
  }
}
