import { unreachable } from '../kernel/assert.ts';
import type { ChannelMessage, CheckpointBarrier, LatencyMarker, RecordsMessage } from '../exchange/channel-message.ts';
import type { DirectLine } from '../exchange/direct-line.ts';
import type { InputChannel } from '../exchange/input-channel.ts';
import type { AlignerEffect, BarrierAligner } from './barrier-aligner.ts';
import { MAX_WATERMARK } from './time/element.ts';

/** What the task does next. */
export type GateEvent =
  /** The task says `processed(channel)` when it is done with the batch. */
  | { readonly kind: 'records'; readonly channel: number; readonly message: RecordsMessage }
  | { readonly kind: 'checkpoint'; readonly barrier: CheckpointBarrier; readonly alignmentMs: number }
  | { readonly kind: 'superseded'; readonly checkpointId: number; readonly by: number }
  /** Event time on one channel; NaN: it is idle. In order with the channel's records. */
  | { readonly kind: 'watermark'; readonly channel: number; readonly timestampMs: number }
  | { readonly kind: 'latency-marker'; readonly marker: LatencyMarker }
  /** No channel will bring another record. Once. `drained`: a barrier follows with which the task ends. */
  | { readonly kind: 'end-of-data'; readonly drained: boolean };

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

  constructor(
    channels: number,
    private readonly aligner: BarrierAligner,
    /** There may be something to take. */
    private readonly wake: () => void,
    /** `eventTime`: the task wants to know how far it is on each channel. */
    private readonly options: { readonly eventTime: boolean } = { eventTime: false },
  ) {
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
        return { kind: 'records', channel: index, message };
      }
      this.control(index, message, nowMs);
      channel.input?.processed();
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
    for (const { input, blocked, endOfData } of this.channels) {
      if (!blocked && !endOfData) input?.line?.offer();
    }
  }

  processed(index: number): void {
    this.channel(index).input?.processed();
  }

  abortCheckpoint(checkpointId: number, andOlder = false): void {
    this.apply(andOlder ? this.aligner.abortedUpTo(checkpointId) : this.aligner.aborted(checkpointId));
    this.wake();
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
    for (const channel of this.channels) channel.input?.close();
    this.ready.length = 0;
    this.events.length = 0;
  }

  private control(index: number, message: Exclude<ChannelMessage, RecordsMessage>, nowMs: number): void {
    switch (message.kind) {
      case 'barrier':
        this.apply(this.aligner.barrier(index, message.barrier, nowMs));
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
        case 'superseded':
          this.events.push(effect);
          break;
        default:
          unreachable(effect);
      }
    }
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
