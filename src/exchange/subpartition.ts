import { MillraceError } from '../kernel/errors.ts';
import type { BarrierMessage, ChannelMessage, CheckpointBarrier, RecordsMessage } from './channel-message.ts';
import type { DirectLine } from './direct-line.ts';

/** Whoever takes the messages out: a local channel or the endpoint of a connection. */
export interface SubpartitionReader {
  /** There is something to poll. */
  onData(): void;
  /** The producer failed or was cancelled: nothing more will come. */
  onFailed(error: Error): void;
}

/** The task that fills it. */
export interface SubpartitionWriterListener {
  /** The queue has reached its capacity: stop after the record in hand. */
  onFull(): void;
  onAvailable(): void;
  /** A barrier that was pushed into the queue has left it. */
  onBarrierLeft?(subpartition: Subpartition, checkpointId: number): void;
}

/**
 * One consumer's share of a task's output: a short queue of finished messages.
 *
 * It has one reader, once: what a lost reader took is gone, so a second one would miss records.
 * A writer that stops when told holds at most `capacity` messages plus what one record produces.
 *
 * A barrier may overtake: it goes to the front, and what it passes is given to the writer to be stored.
 */
export class Subpartition {
  private readonly queue: ChannelMessage[] = [];
  private reader: SubpartitionReader | undefined;
  private wasRead = false;
  private failure: Error | undefined;
  private ended = false;
  /** Past the queue, for a consumer in this thread. */
  line: DirectLine | undefined;

  constructor(
    readonly description: string,
    private readonly capacity: number,
    private readonly writer: SubpartitionWriterListener,
  ) {}

  get available(): boolean {
    return this.queue.length < this.capacity;
  }

  get queued(): number {
    return this.queue.length;
  }

  /** Everything was handed to the reader, the end included; or nothing ever will be. */
  get drained(): boolean {
    return this.failure !== undefined || (this.ended && this.queue.length === 0);
  }

  /** Whether what is pushed will be read. */
  get open(): boolean {
    return this.failure === undefined && !this.ended;
  }

  push(message: ChannelMessage): void {
    this.line?.close();
    if (this.failure !== undefined || this.ended) return;
    this.ended = message.kind === 'end-of-stream';
    this.queue.push(message);
    if (this.queue.length === this.capacity) this.writer.onFull();
    if (this.queue.length === 1) this.reader?.onData();
  }

  poll(): ChannelMessage | undefined {
    const message = this.queue.shift();
    if (message !== undefined) this.removed(message);
    return message;
  }

  /** The barrier that is next and needs no credit. */
  get overtaking(): CheckpointBarrier | undefined {
    const [first] = this.queue;
    return first?.kind === 'barrier' && first.overtook === true ? first.barrier : undefined;
  }

  /** Puts a barrier before everything but barriers that did the same. Gives the records that it passed. */
  overtake(barrier: CheckpointBarrier): readonly RecordsMessage[] {
    this.line?.close();
    if (!this.open) return [];
    const passed = recordsOf(this.queue);
    const at = this.queue.findIndex((message) => message.kind !== 'barrier' || message.overtook !== true);
    this.queue.splice(at < 0 ? this.queue.length : at, 0, { kind: 'barrier', barrier, overtook: true });
    if (this.queue.length === this.capacity) this.writer.onFull();
    this.reader?.onData();
    return passed;
  }

  /** Whether a barrier of this checkpoint waits in the queue. */
  holds(checkpointId: number): boolean {
    return this.queue.some((message) => message.kind === 'barrier' && message.barrier.checkpointId === checkpointId);
  }

  /** A barrier of this checkpoint that waits in the queue goes to the front. Undefined when it waits no more. */
  moveToFront(checkpointId: number): readonly RecordsMessage[] | undefined {
    const found = this.take((message) => message.barrier.checkpointId === checkpointId);
    if (found === undefined) return undefined;
    this.overtake(found.message.barrier);
    return found.before;
  }

  /** Takes a barrier out of the queue, wherever it is, and tells which records are before it. */
  take(
    matches: (message: BarrierMessage) => boolean,
  ): { readonly message: BarrierMessage; readonly before: readonly RecordsMessage[] } | undefined {
    const found = takeBarrier(this.queue, matches);
    if (found !== undefined) this.removed(found.message);
    return found;
  }

  private removed(message: ChannelMessage): void {
    if (this.queue.length === this.capacity - 1) this.writer.onAvailable();
    if (message.kind === 'barrier' && message.overtook !== true) {
      this.writer.onBarrierLeft?.(this, message.barrier.checkpointId);
    }
  }

  /** Throws `CONFLICT` for a second reader, and the producer's own error when it has failed. */
  attach(reader: SubpartitionReader): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.wasRead) {
      throw new MillraceError('CONFLICT', `${this.description} already has a reader, or has lost it`, {
        hint: 'Pipelined output is read once; producer and consumer must be redeployed together.',
      });
    }
    this.wasRead = true;
    this.reader = reader;
    if (this.queue.length > 0) reader.onData();
  }

  /**
   * The reader is gone. The queue stays, fills up and stops the task, until its master, which learns
   * of the consumer's end, decides: a task that ran on would seem to have delivered its output.
   */
  detach(): void {
    this.reader = undefined;
  }

  /** Drops what is queued and tells the reader. Without effect once everything was read. */
  fail(error: Error): void {
    if (this.drained) return;
    this.failure = error;
    this.queue.length = 0;
    const { reader } = this;
    this.reader = undefined;
    reader?.onFailed(error);
  }
}

function recordsOf(messages: readonly ChannelMessage[]): readonly RecordsMessage[] {
  return messages.filter((message) => message.kind === 'records');
}

/** Takes the first matching barrier out of a queue. */
export function takeBarrier(
  queue: ChannelMessage[],
  matches: (message: BarrierMessage) => boolean,
): { readonly message: BarrierMessage; readonly before: readonly RecordsMessage[] } | undefined {
  const at = queue.findIndex((message) => message.kind === 'barrier' && matches(message));
  const message = queue[at];
  if (message?.kind !== 'barrier') return undefined;
  queue.splice(at, 1);
  return { message, before: recordsOf(queue.slice(0, at)) };
}
