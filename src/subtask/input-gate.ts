import { unreachable } from '../kernel/assert.ts';
import type { ChannelMessage, CheckpointBarrier, LatencyMarker, RecordsMessage } from '../exchange/channel-message.ts';
import type { DirectLine } from '../exchange/direct-line.ts';
import type { InputChannel } from '../exchange/input-channel.ts';
import type { AlignerEffect, BarrierAligner } from './barrier-aligner.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { type InFlightBatch, InFlightCapture, type InFlightEdge, storedBatch } from './in-flight.ts';
import { MAX_WATERMARK } from './time/element.ts';

/** What the task does next. */
export type GateEvent =
  /** The task says `processed(channel)` when it is done with the batch. */
  | {
      readonly kind: 'records';
      readonly channel: number;
      readonly message: RecordsMessage;
      /** Set of what was in flight when the checkpoint was taken that this task was restored from. */
      readonly restored?: RestoredBatch;
    }
  /** `capture`: barriers were overtaken, and what they passed is being gathered. */
  | {
      readonly kind: 'checkpoint';
      readonly barrier: CheckpointBarrier;
      readonly alignmentMs: number;
      readonly capture?: InFlightCapture;
    }
  | { readonly kind: 'superseded'; readonly checkpointId: number; readonly by: number }
  /** Event time on one channel; NaN: it is idle. In order with the channel's records. */
  | { readonly kind: 'watermark'; readonly channel: number; readonly timestampMs: number }
  | { readonly kind: 'latency-marker'; readonly marker: LatencyMarker }
  /** No channel will bring another record. Once. `drained`: a barrier follows with which the task ends. */
  | { readonly kind: 'end-of-data'; readonly drained: boolean };

/** What was in flight, to be processed before anything else. */
export interface RestoredBatch extends InFlightBatch {
  /** A channel of the same edge: which input of the task it feeds. */
  readonly channel: number;
}

/** What a gate needs for barriers that overtake; without it all wait their turn. */
export interface Overtaking {
  readonly clock: Clock;
  /** By channel. */
  readonly origins: readonly { readonly edge: InFlightEdge; readonly producer: number; readonly consumer: number }[];
}

interface GateChannel {
  input: InputChannel | undefined;
  blocked: boolean;
  /** In `ready`. */
  queued: boolean;
  endOfData: boolean;
}

/** All input channels of one task: takes messages from them in turn and aligns barriers. */
export class InputGate {
  private readonly channels: GateChannel[];
  private readonly ready: number[] = [];
  private readonly events: GateEvent[] = [];
  /** Channels that may bring records, and those that may bring anything. */
  private ongoing: number;
  private streaming: number;
  private closed = false;
  private drained = false;
  private readonly backlog: RestoredBatch[];
  /** Channels that hold a barrier which is to overtake. */
  private readonly urgent = new Set<number>();
  private capture: { readonly of: InFlightCapture; readonly pending: Set<number> } | undefined;
  /** Runs for the newest barrier that has come and may overtake when it has waited for long enough. */
  private alignment: { readonly checkpointId: number; readonly timer: Timer } | undefined;
  private expiredId = 0;

  constructor(
    channels: number,
    private readonly aligner: BarrierAligner,
    /** There may be something to take. */
    private readonly wake: () => void,
    /** `eventTime`: the task wants to know how far it is on each channel. */
    private readonly options: {
      readonly eventTime: boolean;
      readonly overtaking?: Overtaking | undefined;
      readonly restored?: readonly RestoredBatch[];
    } = { eventTime: false },
  ) {
    this.backlog = [...(options.restored ?? [])];
    this.channels = Array.from({ length: channels }, () => ({
      input: undefined,
      blocked: false,
      queued: false,
      endOfData: false,
    }));
    this.ongoing = channels;
    this.streaming = channels;
  }

  /** Gives a channel its input once the producer has accepted. What already came is looked at. */
  connect(index: number, input: InputChannel): void {
    if (this.closed) {
      input.close();
      return;
    }
    this.channel(index).input = input;
    this.onData(index);
  }

  /** Names the channel's producer in errors. */
  describe(index: number): string {
    return this.channel(index).input?.description ?? `channel ${index}`;
  }

  onData(index: number): void {
    this.enqueue(index);
    this.wake();
  }

  /** `nowMs` is read once per slice by the caller; alignment times are no finer than that. */
  next(nowMs: number): GateEvent | undefined {
    for (;;) {
      const event = this.events.shift();
      if (event !== undefined) return event;
      const restored = this.backlog.shift();
      if (restored !== undefined) return recordsOf(restored);
      const index = this.ready.shift();
      if (index === undefined) return undefined;
      const channel = this.channel(index);
      channel.queued = false;
      // Blocked since it was queued: it is queued again when the alignment ends.
      if (channel.blocked) continue;
      const message = channel.input?.poll();
      if (message === undefined) continue;
      if (message.kind === 'records') {
        this.enqueue(index);
        if (this.capture?.pending.has(index) === true) this.store(index, [message]);
        return { kind: 'records', channel: index, message };
      }
      this.control(index, message, nowMs);
      if (message.kind !== 'barrier' || message.overtook !== true) channel.input?.processed();
      this.enqueue(index);
    }
  }

  /** Of channels whose producers run in this thread. Once all channels have their input. */
  lines(): readonly { readonly channel: number; readonly line: DirectLine }[] {
    return this.channels.flatMap(({ input }, channel) =>
      input?.line === undefined ? [] : [{ channel, line: input.line }],
    );
  }

  /** There is nothing left to take and to do: producers in this thread need not wait for another slice. */
  openLines(): void {
    if (this.ready.length > 0 || this.events.length > 0) return;
    for (const [index, { input, blocked, endOfData }] of this.channels.entries()) {
      if (!blocked && !endOfData && this.capture?.pending.has(index) !== true) input?.line?.offer();
    }
  }

  processed(index: number): void {
    this.channel(index).input?.processed();
  }

  abortCheckpoint(checkpointId: number, andOlder = false): void {
    this.apply(andOlder ? this.aligner.abortedUpTo(checkpointId) : this.aligner.aborted(checkpointId));
    this.wake();
  }

  /** Something is to be done even if the outputs are full: see {@link nextUrgent}. */
  get hasUrgent(): boolean {
    return this.urgent.size > 0;
  }

  /** A barrier has come on a channel, perhaps behind records. */
  onBarrier(index: number, barrier: CheckpointBarrier, overtook: boolean): void {
    if (this.options.overtaking === undefined) return;
    if (overtook) this.urgent.add(index);
    else this.startTimer(barrier);
    this.wake();
  }

  /** To be called between two records: what barriers have to say that do not wait their turn. */
  nextUrgent(nowMs: number): GateEvent | undefined {
    for (const index of this.urgent) {
      this.urgent.delete(index);
      const { input } = this.channel(index);
      for (;;) {
        const found = input?.take(
          ({ barrier, overtook }) => overtook === true || barrier.checkpointId === this.expiredId,
        );
        if (found === undefined) break;
        const { barrier, overtook } = found.message;
        if (overtook !== true) input?.processed();
        const event = this.applyUrgent(this.aligner.barrier(index, barrier, nowMs, true), index, found.before);
        if (event === undefined) continue;
        this.urgent.add(index); // there may be more
        return event;
      }
    }
    const { expiredId } = this;
    this.expiredId = 0;
    return expiredId === 0
      ? undefined
      : this.applyUrgent(this.aligner.timedOut?.(expiredId, nowMs) ?? [], undefined, []);
  }

  /** Every producer has finished and its end was read. */
  get finished(): boolean {
    return this.streaming === 0;
  }

  /** Messages held on this side, over all channels. */
  get queued(): number {
    return this.channels.reduce((sum, { input }) => sum + (input?.queued ?? 0), 0);
  }

  close(): void {
    this.closed = true;
    this.alignment?.timer.cancel();
    this.capture?.of.giveUp('the task has ended');
    this.capture = undefined;
    for (const channel of this.channels) channel.input?.close();
    this.ready.length = 0;
    this.events.length = 0;
  }

  private control(index: number, message: Exclude<ChannelMessage, RecordsMessage>, nowMs: number): void {
    switch (message.kind) {
      case 'barrier':
        if (this.options.overtaking !== undefined) this.startTimer(message.barrier);
        this.apply(this.aligner.barrier(index, message.barrier, nowMs, this.overtakes(message)));
        return;
      case 'watermark':
        if (this.options.eventTime) {
          this.events.push({ kind: 'watermark', channel: index, timestampMs: message.timestampMs });
        }
        return;
      case 'latency-marker':
        this.events.push(message);
        return;
      case 'end-of-data':
        if (message.drained === true) this.drained = true;
        this.endOfData(index);
        return;
      case 'end-of-stream':
        this.endOfData(index);
        this.streaming--;
        this.apply(this.aligner.ended(index, nowMs));
        return;
      default:
        unreachable(message);
    }
  }

  private endOfData(index: number): void {
    const channel = this.channel(index);
    if (channel.endOfData) return;
    channel.endOfData = true;
    // Also of a producer that knows nothing of event time: nobody is to wait for it.
    if (this.options.eventTime) this.events.push({ kind: 'watermark', channel: index, timestampMs: MAX_WATERMARK });
    this.ongoing--;
    if (this.ongoing === 0) this.events.push({ kind: 'end-of-data', drained: this.drained });
  }

  private apply(effects: readonly AlignerEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'block':
          this.channel(effect.channel).blocked = true;
          break;
        case 'unblock-all':
          this.unblockAll();
          break;
        case 'trigger':
          this.events.push({ kind: 'checkpoint', barrier: effect.barrier, alignmentMs: effect.alignmentMs });
          break;
        case 'overtake': {
          const of = this.startCapture(effect.barrier.checkpointId, effect.pending);
          const { barrier, alignmentMs } = effect;
          this.events.push({ kind: 'checkpoint', barrier, alignmentMs, capture: of });
          break;
        }
        case 'arrived':
          this.capture?.pending.delete(effect.channel);
          break;
        case 'captured':
          this.capture?.of.finish();
          this.capture = undefined;
          break;
        case 'capture-dropped':
          this.capture?.of.giveUp(effect.reason);
          this.capture = undefined;
          break;
        case 'superseded':
          this.events.push(effect);
          break;
        default:
          unreachable(effect);
      }
    }
  }

  private overtakes({ overtook }: { readonly overtook?: true }): boolean {
    return overtook === true && this.options.overtaking !== undefined;
  }

  /** Like `apply`, for a barrier that `before` were ahead of in its queue. Gives the checkpoint at once. */
  private applyUrgent(
    effects: readonly AlignerEffect[],
    index: number | undefined,
    before: readonly RecordsMessage[],
  ): GateEvent | undefined {
    let begun: GateEvent | undefined;
    let toStore = before;
    for (const effect of effects) {
      const waiting = this.events.length;
      if (effect.kind === 'arrived' && index !== undefined) {
        this.store(index, toStore);
        toStore = [];
      }
      this.apply([effect]);
      if (effect.kind !== 'overtake') continue;
      // Not behind events that still wait: records taken from now on are behind the snapshot.
      [begun] = this.events.splice(waiting, 1);
      if (index !== undefined) this.store(index, toStore);
      toStore = [];
    }
    return begun;
  }

  private startCapture(checkpointId: number, pending: ReadonlySet<number>): InFlightCapture {
    const of = new InFlightCapture(checkpointId);
    this.capture = { of, pending: new Set(pending) };
    // What comes past the queues would not be seen here.
    for (const index of pending) this.channel(index).input?.line?.close();
    of.batches.push(...this.backlog.map(({ channel: _, ...batch }) => batch));
    return of;
  }

  private store(index: number, messages: readonly RecordsMessage[]): void {
    const origin = this.options.overtaking?.origins[index];
    if (this.capture === undefined || origin === undefined) return;
    for (const message of messages) this.capture.of.batches.push({ ...origin, batch: storedBatch(message) });
  }

  private startTimer({ checkpointId, options }: CheckpointBarrier): void {
    const { overtaking } = this.options;
    if (overtaking === undefined || options.aligned || options.alignedTimeoutMs === 0) return;
    if (this.closed || (this.alignment?.checkpointId ?? 0) >= checkpointId) return;
    this.alignment?.timer.cancel();
    const timer = overtaking.clock.schedule(options.alignedTimeoutMs, () => {
      this.expiredId = checkpointId;
      for (const index of this.channels.keys()) this.urgent.add(index);
      this.wake();
    });
    this.alignment = { checkpointId, timer };
  }

  private unblockAll(): void {
    this.channels.forEach((channel, index) => {
      if (!channel.blocked) return;
      channel.blocked = false;
      this.enqueue(index);
    });
  }

  private enqueue(index: number): void {
    const channel = this.channel(index);
    if (channel.queued || channel.blocked || this.closed) return;
    channel.queued = true;
    this.ready.push(index);
  }

  private channel(index: number): GateChannel {
    return this.channels[index] as GateChannel;
  }
}

function recordsOf(restored: RestoredBatch): GateEvent {
  const { codec, payload } = restored.batch;
  const message = { kind: 'records', codec, payload, records: 0 } as const;
  return { kind: 'records', channel: restored.channel, message, restored };
}
