import { MillraceError } from '../kernel/errors.ts';
import type { ChannelMessage } from './channel-message.ts';
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
}

/**
 * One consumer's share of a task's output: a short queue of finished messages.
 *
 * It has one reader, once: what a lost reader took is gone, so a second one would miss records.
 * A writer that stops when told holds at most `capacity` messages plus what one record produces.
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
    if (message !== undefined && this.queue.length === this.capacity - 1) this.writer.onAvailable();
    return message;
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
