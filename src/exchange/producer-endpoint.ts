import type { Clock, Timer } from '../kernel/clock.ts';
import { asError, CorruptError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId, JobId } from '../kernel/ids.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { ExchangeOptions } from './exchange-options.ts';
import type { Frame } from './frame.ts';
import {
  acceptedFrame,
  decodeCredit,
  decodeError,
  decodeHandshake,
  errorFrame,
  messageToFrame,
} from './message-frames.ts';
import type { Subpartition } from './subpartition.ts';
import type { SubpartitionRegistry } from './subpartition-registry.ts';
import type { Wire, WireHandlers } from './wire.ts';

export interface ProducerEndpointDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: SubpartitionRegistry;
  readonly background: BackgroundTasks;
}

const CHANNELS_MAX = 65_536;
const CREDITS_MAX = 65_536;

interface Channel {
  readonly id: number;
  /** Undefined while the producer is awaited. */
  subpartition: Subpartition | undefined;
  readonly gone: AbortController;
  credits: number;
  sequence: number;
  /** In `ready`. */
  queued: boolean;
}

/** The producers' side of one connection: sends what subpartitions hold as far as credits allow. */
export class ProducerEndpoint implements WireHandlers {
  private readonly channels = new Map<number, Channel>();
  /** Channels with data and credit, served in turn. */
  private ready: Channel[] = [];
  private congested = false;
  private pumping = false;
  private idle: Timer | undefined;

  constructor(
    private readonly deps: ProducerEndpointDeps,
    private readonly options: ExchangeOptions,
    private readonly wire: Wire,
  ) {
    this.watchIdleness();
  }

  onFrame(frame: Frame): void {
    switch (frame.kind) {
      case 'handshake':
        this.open(frame);
        return;
      case 'credit':
        this.addCredit(frame);
        return;
      case 'error': {
        const channel = this.channels.get(frame.channel);
        if (channel === undefined) return;
        this.deps.log.debug({ peer: this.wire.peer, err: decodeError(frame) }, 'consumer closed its channel');
        this.remove(channel);
        return;
      }
      default:
        throw new CorruptError(`a consumer sent a ${frame.kind} frame`);
    }
  }

  onDrain(): void {
    this.congested = false;
    this.pump();
  }

  onClosed(error: Error | undefined): void {
    if (isMillraceError(error, 'CORRUPT')) {
      this.deps.log.warn({ peer: this.wire.peer, err: error }, 'a consumer sent damaged data');
    }
    this.idle?.cancel();
    this.idle = undefined;
    for (const channel of this.channels.values()) this.drop(channel);
    this.channels.clear();
    this.ready = [];
  }

  private open(frame: Frame): void {
    const handshake = decodeHandshake(frame);
    if (this.channels.has(frame.channel)) throw new CorruptError(`channel ${frame.channel} was opened twice`);
    if (this.channels.size >= CHANNELS_MAX) throw new CorruptError(`a connection opened over ${CHANNELS_MAX} channels`);
    const channel: Channel = {
      id: frame.channel,
      subpartition: undefined,
      gone: new AbortController(),
      credits: handshake.credits,
      sequence: 0,
      queued: false,
    };
    this.channels.set(channel.id, channel);
    this.watchIdleness();
    this.deps.background.run('open output channel', async () => {
      const id = {
        jobId: handshake.jobId as JobId,
        deployment: handshake.deployment as DeploymentId,
        attemptId: handshake.producerAttempt as AttemptId,
        edgeId: handshake.edgeId,
        subpartition: handshake.subpartition,
      };
      try {
        const subpartition = await this.deps.registry.find(id, this.options.producerWaitMs, channel.gone.signal);
        if (this.channels.get(channel.id) !== channel) return;
        this.serve(channel, subpartition);
      } catch (error) {
        if (this.channels.get(channel.id) !== channel) return;
        this.deps.log.info({ peer: this.wire.peer, handshake, err: error }, 'data channel refused');
        this.refuse(channel, asError(error));
      }
    });
  }

  private serve(channel: Channel, subpartition: Subpartition): void {
    // The answer goes first: attaching may already send data.
    subpartition.attach({
      onData: () => this.enqueue(channel),
      onFailed: (error) => this.refuse(channel, error),
    });
    channel.subpartition = subpartition;
    this.wire.send(acceptedFrame(channel.id));
    this.enqueue(channel);
  }

  private refuse(channel: Channel, error: Error): void {
    this.wire.send(errorFrame(channel.id, error));
    this.remove(channel);
  }

  private addCredit(frame: Frame): void {
    const channel = this.channels.get(frame.channel);
    // Credits for a channel that has just ended cross with its end.
    if (channel === undefined) return;
    channel.credits += decodeCredit(frame);
    if (channel.credits > CREDITS_MAX) throw new CorruptError(`channel ${channel.id} was given too many credits`);
    this.enqueue(channel);
  }

  private enqueue(channel: Channel): void {
    if (channel.queued || channel.subpartition === undefined) return;
    if (channel.credits === 0 && channel.subpartition.overtaking === undefined) return;
    if (channel.subpartition.queued === 0) return;
    channel.queued = true;
    this.ready.push(channel);
    this.pump();
  }

  /** Stops when the socket is full: what waits stays in the subpartitions, which are bounded. */
  private pump(): void {
    if (this.pumping) return;
    this.pumping = true;
    try {
      while (!this.congested) {
        const channel = this.ready.shift();
        if (channel === undefined) return;
        channel.queued = false;
        this.sendNext(channel);
      }
    } finally {
      this.pumping = false;
    }
  }

  private sendNext(channel: Channel): void {
    // What entered the queue since may have taken the place of a barrier that needs no credit.
    if (channel.credits === 0 && channel.subpartition?.overtaking === undefined) return;
    const message = channel.subpartition?.poll();
    if (message === undefined) return;
    if (message.kind !== 'barrier' || message.overtook !== true) channel.credits--;
    channel.sequence = (channel.sequence + 1) >>> 0;
    if (!this.wire.send(messageToFrame(message, channel.id, channel.sequence))) this.congested = true;
    if (message.kind === 'end-of-stream') this.remove(channel);
    else this.enqueue(channel);
  }

  private remove(channel: Channel): void {
    this.channels.delete(channel.id);
    this.drop(channel);
    this.watchIdleness();
  }

  private drop(channel: Channel): void {
    channel.gone.abort();
    channel.subpartition?.detach();
    channel.subpartition = undefined;
  }

  /** Consumers close connections that they no longer need; this is for those that never will. */
  private watchIdleness(): void {
    this.idle?.cancel();
    this.idle = undefined;
    if (this.channels.size > 0) return;
    this.idle = this.deps.clock.schedule(this.options.idleConnectionMs, () =>
      this.wire.destroy(new MillraceError('TIMEOUT', `${this.wire.peer} holds a connection without a channel`)),
    );
  }
}
