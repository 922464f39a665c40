import { CorruptError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import type { ChannelMessage } from './channel-message.ts';
import type { Frame } from './frame.ts';
import type { InputChannel, InputChannelListener } from './input-channel.ts';
import { creditFrame, errorFrame, frameToMessage } from './message-frames.ts';
import { takeBarrier } from './subpartition.ts';
import type { Wire } from './wire.ts';

export interface RemoteChannelOptions {
  readonly id: number;
  readonly description: string;
  readonly credits: number;
  readonly wire: Wire;
  readonly listener: InputChannelListener;
  /** The connection forgets the channel. */
  readonly onReleased: () => void;
}

/** The consumer's side of a channel of a connection. */
export class RemoteInputChannel implements InputChannel {
  readonly description: string;
  /** Settles with the producer's answer to the handshake. */
  readonly accepted: Promise<void>;
  private readonly queue: ChannelMessage[] = [];
  private state: 'asking' | 'open' | 'ended' | 'failed' | 'closed' = 'asking';
  private sequence = 0;
  /** Processed but not yet told to the producer: told in halves, to spare frames. */
  private owed = 0;
  private readonly creditStep: number;
  private settle: { readonly resolve: () => void; readonly reject: (error: Error) => void };

  constructor(private readonly options: RemoteChannelOptions) {
    this.description = options.description;
    this.creditStep = Math.max(1, Math.floor(options.credits / 2));
    let settle: typeof this.settle | undefined;
    this.accepted = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.settle = settle as unknown as typeof this.settle;
  }

  get queued(): number {
    return this.queue.length;
  }

  poll(): ChannelMessage | undefined {
    return this.queue.shift();
  }

  take(matches: Parameters<InputChannel['take']>[0]): ReturnType<InputChannel['take']> {
    return takeBarrier(this.queue, matches);
  }

  processed(): void {
    if (this.state !== 'open') return;
    this.owed++;
    if (this.owed < this.creditStep) return;
    this.options.wire.send(creditFrame(this.options.id, this.owed));
    this.owed = 0;
  }

  close(): void {
    if (this.state === 'closed' || this.state === 'failed') return;
    const wasLive = this.state === 'asking' || this.state === 'open';
    const wasAsking = this.state === 'asking';
    this.state = 'closed';
    this.queue.length = 0;
    const reason = new MillraceError('CLOSED', 'the consumer reads no more');
    if (wasLive) this.options.wire.send(errorFrame(this.options.id, reason));
    if (wasAsking) this.settle.reject(reason);
    this.options.onReleased();
  }

  /** A throw ends the connection: a peer that breaks the protocol once cannot be trusted on other channels. */
  receive(frame: Frame): void {
    if (frame.kind === 'handshake') {
      if (this.state !== 'asking') throw new CorruptError(`${this.description} was accepted twice`);
      this.state = 'open';
      this.settle.resolve();
      return;
    }
    const message = frameToMessage(frame);
    if (message === undefined || this.state !== 'open') throw new CorruptError(`unexpected ${frame.kind} frame`);
    this.sequence = (this.sequence + 1) >>> 0;
    if (frame.sequence !== this.sequence) {
      throw new CorruptError(`${this.description} sent message ${frame.sequence} where ${this.sequence} was due`);
    }
    const overtook = message.kind === 'barrier' && message.overtook === true;
    const held = this.queue.reduce((n, one) => (one.kind === 'barrier' && one.overtook === true ? n : n + 1), 0);
    if (!overtook && held >= this.options.credits)
      throw new CorruptError(`${this.description} sent beyond its credits`);
    this.queue.push(message);
    if (message.kind === 'barrier') this.options.listener.onBarrier?.(message.barrier, overtook);
    if (message.kind === 'end-of-stream') {
      this.state = 'ended';
      this.options.onReleased();
    }
    this.options.listener.onData();
  }

  /** The producer ended the channel with an error, or the connection was lost. */
  fail(error: Error): void {
    if (this.state === 'ended' || this.state === 'closed' || this.state === 'failed') return;
    const wasAsking = this.state === 'asking';
    this.state = 'failed';
    this.queue.length = 0;
    this.options.onReleased();
    if (wasAsking) this.settle.reject(error);
    else this.options.listener.onFailed(error);
  }

  /** What the consumer is told when its producer says why it ended. */
  failByProducer(reason: MillraceError): void {
    // A refusal of the handshake is for the consumer as it is; the end of a running producer is a loss.
    if (this.state === 'asking') this.fail(reason);
    else this.fail(new UnavailableError(`${this.description} has ended: ${reason.message}`, { cause: reason }));
  }
}
