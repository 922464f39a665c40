import type { Clock, Timer } from '../kernel/clock.ts';
import { CorruptError, isMillraceError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import type { ExchangeOptions } from './exchange-options.ts';
import type { Frame } from './frame.ts';
import type { InputChannelListener, InputRequest } from './input-channel.ts';
import { decodeError, handshakeFrame } from './message-frames.ts';
import { RemoteInputChannel } from './remote-channel.ts';
import type { Wire, WireHandlers } from './wire.ts';

/** The consumers' side of one connection: all channels that this slot reads from another slot. */
export class ConsumerConnection implements WireHandlers {
  private readonly channels = new Map<number, RemoteInputChannel>();
  private nextChannel = 1;
  private closed = false;
  private idle: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly options: ExchangeOptions,
    private readonly wire: Wire,
    private readonly onGone: () => void,
  ) {
    this.closeWhenIdle();
  }

  get usable(): boolean {
    return !this.closed;
  }

  /** Resolves once the producer has accepted; rejects with its refusal or with `UNAVAILABLE`. */
  async open(request: InputRequest, listener: InputChannelListener, signal: AbortSignal): Promise<RemoteInputChannel> {
    const id = this.nextChannel++;
    const description = `producer subtask ${request.producerSubtask} of edge ${request.edgeId} at ${this.wire.peer}`;
    const { credits } = this.options;
    const channel = new RemoteInputChannel({
      id,
      description,
      credits,
      wire: this.wire,
      listener,
      onReleased: () => {
        this.channels.delete(id);
        this.closeWhenIdle();
      },
    });
    this.channels.set(id, channel);
    this.closeWhenIdle();
    // The producer gives up first and says why; this bound is for one that says nothing at all.
    const limitMs = this.options.producerWaitMs + this.options.handshakeTimeoutMs;
    const timer = this.clock.schedule(limitMs, () =>
      channel.fail(new UnavailableError(`${description} did not answer within ${limitMs} ms`)),
    );
    const onAbort = () => channel.close();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal.aborted) channel.close();
      else if (this.closed) channel.fail(new UnavailableError(`the connection to ${this.wire.peer} was lost`));
      else this.wire.send(handshakeFrame(id, { ...request, credits }));
      await channel.accepted;
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    }
    return channel;
  }

  onFrame(frame: Frame): void {
    const channel = this.channels.get(frame.channel);
    // What was under way when we closed the channel still arrives.
    if (channel === undefined) return;
    if (frame.kind === 'error') channel.failByProducer(decodeError(frame));
    else if (frame.kind === 'credit') throw new CorruptError('a producer sent credits');
    else channel.receive(frame);
  }

  onDrain(): void {
    // Credits and handshakes are few and small: they are never held back.
  }

  onClosed(error: Error | undefined): void {
    this.closed = true;
    this.idle?.cancel();
    this.onGone();
    const why = error === undefined ? 'it closed the connection' : error.message;
    for (const channel of [...this.channels.values()]) {
      const message = `lost ${channel.description}: ${why}`;
      channel.fail(
        isMillraceError(error, 'CORRUPT')
          ? new CorruptError(message, { cause: error })
          : new UnavailableError(message, { cause: error }),
      );
    }
    this.channels.clear();
  }

  destroy(reason: Error): void {
    this.wire.destroy(reason);
  }

  /** A little patience: a restarted task may want the same peer again. */
  private closeWhenIdle(): void {
    this.idle?.cancel();
    this.idle = undefined;
    if (this.channels.size > 0 || this.closed) return;
    this.idle = this.clock.schedule(this.options.idleConnectionMs / 2, () => {
      // Not usable from here on, although `onClosed` is still to come.
      this.closed = true;
      this.onGone();
      this.wire.destroy(new MillraceError('CLOSED', 'nobody needs the connection'));
    });
  }
}
