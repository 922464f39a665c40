import type { CheckpointBarrier, LatencyMarker } from '../exchange/channel-message.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { RecordsMessage } from '../exchange/channel-message.ts';
import type { Subpartition, SubpartitionWriterListener } from '../exchange/subpartition.ts';
import { InFlightCapture, storedBatch } from './in-flight.ts';
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

interface WaitingBarrier {
  readonly edge: OutputEdge;
  /** Of the subpartition. */
  readonly index: number;
}

/** Those of one checkpoint that are still queued, and may have to overtake. */
interface WaitingBarriers {
  readonly checkpointId: number;
  readonly waiting: Map<Subpartition, WaitingBarrier>;
  readonly done: () => void;
}

/** All of a task's output edges: their room, their batches' patience, and what goes to every consumer. */
export class TaskOutputs implements SubpartitionWriterListener {
  private readonly edges: OutputEdge[] = [];
  /** How many subpartitions are full. An object, for who looks at it after every record. */
  readonly room = { full: 0 };
  private timer: Timer | undefined;
  private dirty = false;
  private closed = false;
  private readonly waitingBarriers = new Set<WaitingBarriers>();

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

  /**
   * Sends a barrier to every consumer: at once past what is queued where `overtaking` and the edge allows it; else
   * behind it, and past it when it has waited for long enough. Gives what it passes; undefined: it passes nothing.
   */
  barrier(barrier: CheckpointBarrier, overtaking: boolean): InFlightCapture | undefined {
    const { checkpointId, options } = barrier;
    const capture = new InFlightCapture(checkpointId);
    const waiting = new Map<Subpartition, WaitingBarrier>();
    for (const edge of this.edges) {
      if (edge.inFlight === undefined || options.aligned) edge.broadcast({ kind: 'barrier', barrier });
      else if (overtaking) {
        for (const { subpartition, message } of edge.overtake(barrier)) store(capture, edge, subpartition, message);
      } else {
        edge.broadcast({ kind: 'barrier', barrier });
        for (const [index, subpartition] of edge.subpartitions.entries()) {
          if (subpartition.holds(checkpointId)) waiting.set(subpartition, { edge, index });
        }
      }
    }
    if (options.aligned) return undefined;
    if (waiting.size === 0) capture.finish();
    else this.wait(capture, waiting, options.alignedTimeoutMs);
    return capture;
  }

  onBarrierLeft(subpartition: Subpartition, checkpointId: number): void {
    for (const one of this.waitingBarriers) {
      if (one.checkpointId !== checkpointId) continue;
      one.waiting.delete(subpartition);
      if (one.waiting.size === 0) one.done();
    }
  }

  /** Until the barriers have left the queues, or it is time for them to go to the front. */
  private wait(capture: InFlightCapture, waiting: Map<Subpartition, WaitingBarrier>, timeoutMs: number): void {
    const { checkpointId } = capture;
    const timer = this.deps.clock.schedule(timeoutMs, () => {
      for (const [subpartition, { edge, index }] of [...waiting]) {
        const passed = subpartition.moveToFront(checkpointId) ?? [];
        for (const message of passed) store(capture, edge, index, message);
      }
      entry.done();
    });
    const entry: WaitingBarriers = {
      checkpointId,
      waiting,
      done: () => {
        timer.cancel();
        this.waitingBarriers.delete(entry);
        capture.finish();
      },
    };
    this.waitingBarriers.add(entry);
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
    for (const { done } of [...this.waitingBarriers]) done();
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

function store(
  capture: InFlightCapture,
  { inFlight }: OutputEdge,
  subpartition: number,
  message: RecordsMessage,
): void {
  if (inFlight === undefined) return;
  const { edge, producer, firstConsumer } = inFlight;
  capture.batches.push({ edge, producer, consumer: firstConsumer + subpartition, batch: storedBatch(message) });
}
