import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import type { DirectLine } from '../exchange/direct-line.ts';
import { unreachable } from '../kernel/assert.ts';
import type { Clock } from '../kernel/clock.ts';
import type { BatchReader } from './batch-reader.ts';
import type { Chain, ReceiverEnds } from './chain.ts';
import { encodeRecords, type InFlightCapture } from './in-flight.ts';
import type { GateEvent, InputGate, Overtaking, RestoredBatch } from './input-gate.ts';
import type { IoMeter, Waiting } from './io-meter.ts';
import type { LatencyTracker } from './latency-tracker.ts';
import type { SubtaskOperator } from './operators/operator.ts';
import type { SourceOperator } from './operators/source-operator.ts';
import type { Runnable } from './run-loop.ts';
import type { TaskOutputs } from './task-outputs.ts';
import type { TaskTime } from './time/task-time.ts';

export type SubtaskInput =
  | { readonly kind: 'source'; readonly source: SourceOperator }
  | { readonly kind: 'gate'; readonly gate: InputGate; readonly reader: BatchReader };

interface Batch {
  readonly records: readonly unknown[];
  readonly channel: number;
  readonly timestamps: Float64Array | undefined;
  /** It was in flight when the checkpoint was taken that the task was restored from. */
  readonly restored: RestoredBatch | undefined;
}

export interface SubtaskLoopSpec {
  readonly clock: Clock;
  readonly input: SubtaskInput;
  readonly chain: Chain;
  /** Of tasks that have to do with event time or timers; its chain is `chain`. */
  readonly time?: TaskTime | undefined;
  readonly outputs: TaskOutputs;
  /** Where latency is tracked. */
  readonly latency?: LatencyTracker | undefined;
  /** The job has stopped before: nothing is read and no timer fires, but barriers pass. */
  readonly suspended?: boolean;
  /** Those that may ask to wait. */
  readonly sinks: readonly SubtaskOperator[];
  readonly meter: IoMeter;
  readonly wake: () => void;
  /** `capture`: the barrier has overtaken records of the input, which are being gathered. */
  readonly onCheckpoint: (barrier: CheckpointBarrier, alignmentMs: number, capture?: InFlightCapture) => void;
  /** Which edge each channel belongs to, for records that are stored because a barrier overtook them. */
  readonly origins?: Overtaking['origins'] | undefined;
  readonly onSuperseded: (checkpointId: number, by: number) => void;
  /** `drained`: the job is being stopped, and a checkpoint follows. */
  readonly onEndOfData: (drained: boolean) => void;
  readonly onFailure: (error: unknown) => void;
}

/** Records between two readings of the clock: adapted so that they take a fraction of a slice. */
const CHUNK_MAX = 1_024;
/** A source cannot be stopped within one poll, so this bounds what goes beyond full outputs. */
const POLL_MAX = 128;
const CHUNK_LONG_MS = 1;
const CHUNK_SHORT_MS = 0.25;
/** Elements between two looks at the clock. */
const PAUSE_CHECK_ELEMENTS = 256;
/**
 * Elements that the record in hand, or what is left of one poll of a source, may emit beyond full outputs, so that
 * a barrier need not wait for room. What emits more keeps the barrier waiting.
 */
const OVERDRAFT_ELEMENTS = 16_384;
/** Times that outputs may become full on the way. */
const OVERDRAFT_ROUNDS = 1_024;
/** Triggers waiting for a backpressured source; the master has given up on the older ones. */
const TRIGGERS_MAX = 16;

/**
 * What a running subtask does in its slices. Everything that changes its state happens here, one
 * step at a time: a batch's records, a barrier, the end. Before each step the outputs have room and
 * no flatMap is half done, so a snapshot is taken between records and never in the middle of one.
 */
export class SubtaskLoop implements Runnable {
  private stopped = false;
  private batch: Batch | undefined;
  private next = 0;
  private chunk = 64;
  private deadlineMs = 0;
  private nowMs = 0;
  private pauseChecks = 0;
  private waitingForSink = false;
  private waitingForSource = false;
  private sourceEnd: 'ahead' | 'seen' | 'announced' = 'ahead';
  /** The data has ended; what its end sets free may still be on its way. */
  private ending = false;
  /** The data ends because the job is being stopped. */
  private drained = false;
  /** Behind the snapshot with which the job stops: nothing happens any more. */
  private halted = false;
  /** Elements that may still be emitted although there is no room. */
  private overdraft = 0;
  /** Once for each barrier: a task that is woken again and again must not emit more each time. */
  private overdrawn = false;
  private readonly triggers: CheckpointBarrier[] = [];
  private readonly lines: DirectLine[] = [];

  constructor(private readonly spec: SubtaskLoopSpec) {
    const { input, chain, time, meter } = spec;
    if (input.kind !== 'gate') return;
    for (const { channel, line } of input.gate.lines()) {
      const ends: ReceiverEnds = {
        // The line is closed by then: what follows waits in the queue for a slice of this task.
        failed: (error) => {
          line.close();
          spec.onFailure(error);
        },
        full: () => {
          line.close();
          spec.wake();
        },
      };
      line.consume({
        receive: time === undefined ? chain.receiver(ends) : time.receiver(channel, line, ends),
        needsCopies: chain.keepsRecords,
        deadline: (deadlineMs) => this.beginSlice(deadlineMs),
        received: (records, bytes) => {
          meter.readRecords += records;
          meter.readBytes += bytes;
        },
      });
      this.lines.push(line);
      meter.lines.push(line);
    }
  }

  /** The barrier is inserted as soon as the outputs have room. Gives the triggers given up for it. */
  trigger(barrier: CheckpointBarrier): readonly CheckpointBarrier[] {
    this.triggers.push(barrier);
    this.spec.wake();
    return this.triggers.length > TRIGGERS_MAX ? this.triggers.splice(0, 1) : [];
  }

  /** To be called from `onCheckpoint`. */
  halt(): void {
    this.halted = true;
  }

  /** The job goes on after all. */
  resume(): void {
    this.halted = false;
    this.spec.wake();
  }

  abortCheckpoint(checkpointId: number, andOlder = false): void {
    const kept = this.triggers.filter((barrier) =>
      andOlder ? barrier.checkpointId > checkpointId : barrier.checkpointId !== checkpointId,
    );
    this.triggers.splice(0, this.triggers.length, ...kept);
    if (this.spec.input.kind === 'gate') this.spec.input.gate.abortCheckpoint(checkpointId, andOlder);
  }

  /** Nothing runs after this. Gives the triggers that were still waiting. */
  stop(): readonly CheckpointBarrier[] {
    this.stopped = true;
    this.batch = undefined;
    for (const line of this.lines) line.close();
    try {
      this.spec.chain.close();
    } catch (error) {
      // A generator's `finally` that throws: one more failure of a task that ends anyway.
      this.spec.onFailure(error);
    }
    return this.triggers.splice(0);
  }

  runSlice(deadlineMs: number): boolean {
    if (this.stopped) return false;
    const { clock, meter } = this.spec;
    this.nowMs = clock.nowMs();
    meter.begin(this.nowMs);
    this.beginSlice(deadlineMs);
    let waiting: Waiting = 'idle';
    try {
      waiting = this.advance();
    } catch (error) {
      this.spec.onFailure(error);
    }
    meter.end(clock.nowMs(), waiting);
    return waiting === 'yielded' && !this.stopped;
  }

  /** For the chain, between records and between the elements of a flatMap. */
  readonly shouldPause = (elements = 1): boolean => {
    if (this.overdraft > 0) {
      this.overdraft -= elements;
      return this.overdraft <= 0;
    }
    if (this.blocked()) return true;
    this.pauseChecks += elements;
    if (this.pauseChecks < PAUSE_CHECK_ELEMENTS) return false;
    this.pauseChecks = 0;
    return this.spec.clock.nowMs() >= this.deadlineMs;
  };

  private advance(): Waiting {
    const { chain, clock } = this.spec;
    for (;;) {
      if (this.halted) return 'idle';
      if (this.overtake()) continue;
      if (chain.paused && !this.blocked()) chain.resume();
      if (this.blocked()) {
        this.waitForSinks();
        return 'backpressured';
      }
      if (chain.paused) return 'yielded';
      if (this.stopped) return 'idle';
      if (!this.step()) {
        this.openLines();
        return 'idle';
      }
      const nowMs = clock.nowMs();
      this.adapt(nowMs - this.nowMs);
      this.nowMs = nowMs;
      if (nowMs >= this.deadlineMs) return 'yielded';
    }
  }

  /** A barrier that does not wait its turn: the snapshot comes between two records all the same. */
  private overtake(): boolean {
    const { input, chain } = this.spec;
    const [trigger] = this.triggers;
    const isSource = input.kind === 'source';
    if (isSource ? trigger?.options.aligned !== false : !input.gate.hasUrgent) return false;
    if (chain.paused && !this.overdrawn) this.emitBeyondRoom();
    if (chain.paused || this.stopped) return false;
    this.overdrawn = false;
    if (isSource) {
      this.triggers.shift();
      if (trigger !== undefined) this.spec.onCheckpoint(trigger, 0);
      return true;
    }
    const event = input.gate.nextUrgent(this.nowMs);
    if (event !== undefined) this.handle(event, input);
    return event !== undefined || input.gate.hasUrgent;
  }

  /** Lets the record in hand be done, within a bound: snapshots are taken between records. */
  private emitBeyondRoom(): void {
    const { chain, outputs } = this.spec;
    const { room } = outputs;
    this.overdrawn = true;
    this.overdraft = OVERDRAFT_ELEMENTS;
    let full = 0;
    try {
      for (let round = 0; chain.paused && this.overdraft > 0 && round < OVERDRAFT_ROUNDS; round++) {
        full += room.full;
        room.full = 0;
        chain.resume();
      }
    } finally {
      this.overdraft = 0;
      room.full += full;
    }
  }

  private beginSlice(deadlineMs: number): void {
    this.deadlineMs = deadlineMs;
    this.spec.outputs.beginSlice(deadlineMs);
  }

  /** From here on producers in this thread call the chain themselves, until there is something to do here again. */
  private openLines(): void {
    const { input } = this.spec;
    if (input.kind === 'gate' && this.lines.length > 0 && !this.blocked()) input.gate.openLines();
  }

  /** One unit of work; false when there is none. */
  private step(): boolean {
    if (this.takeTrigger()) return true;
    const { input, time, latency, suspended } = this.spec;
    if (time?.due === true && suspended !== true) {
      time.handleDue(this.nowMs);
      return true;
    }
    if (latency?.due === true && suspended !== true) {
      latency.emit();
      return true;
    }
    if (this.ending) {
      this.ending = false;
      this.spec.onEndOfData(this.drained);
      return true;
    }
    if (input.kind === 'source') return suspended !== true && this.poll(input.source);
    if (this.batch !== undefined) {
      this.processChunk(this.batch, input.gate);
      return true;
    }
    const event = input.gate.next(this.nowMs);
    // The last end of stream is no event, and it may be what a trigger waits for.
    if (event === undefined) return this.takeTrigger();
    this.handle(event, input);
    return true;
  }

  /** A task with inputs begins a checkpoint itself once all its producers have finished: no barrier can come then. */
  private takeTrigger(): boolean {
    const { input } = this.spec;
    if (this.triggers.length === 0 || (input.kind === 'gate' && !input.gate.finished)) return false;
    if (!this.drainedFor(this.triggers[0])) return false;
    const trigger = this.triggers.shift();
    if (trigger !== undefined) this.spec.onCheckpoint(trigger, 0);
    return true;
  }

  /** A source that is to be drained ends its data before it lets the barrier pass. */
  private drainedFor(trigger: CheckpointBarrier | undefined): boolean {
    if (trigger?.options.stop !== 'DRAIN' || this.spec.input.kind === 'gate') return true;
    if (this.sourceEnd === 'ahead') {
      this.sourceEnd = 'seen';
      this.drained = true;
    }
    return this.sourceEnd === 'announced' && !this.ending;
  }

  private handle(event: GateEvent, { gate, reader }: Extract<SubtaskInput, { kind: 'gate' }>): void {
    switch (event.kind) {
      case 'records': {
        const { message, channel } = event;
        const { records, timestamps } = reader.read(message, gate.describe(channel));
        this.spec.meter.readRecords += records.length;
        this.spec.meter.readBytes += message.copiedBytes ?? message.payload.length;
        const { restored } = event;
        const kept = restored?.batch.timestamps;
        this.batch = {
          records,
          channel,
          timestamps: kept === undefined ? timestamps : Float64Array.from(kept),
          restored,
        };
        this.next = 0;
        return;
      }
      case 'checkpoint':
        if (event.capture !== undefined) this.storeRest(event.capture);
        this.spec.onCheckpoint(event.barrier, event.alignmentMs, event.capture);
        return;
      case 'superseded':
        this.spec.onSuperseded(event.checkpointId, event.by);
        return;
      case 'watermark':
        this.spec.time?.watermark(event.channel, event.timestampMs);
        return;
      case 'latency-marker':
        this.spec.latency?.received(event.marker);
        return;
      case 'end-of-data':
        this.drained = event.drained;
        this.endOfData();
        return;
      default:
        unreachable(event);
    }
  }

  /** Timers of event time fire before consumers and the master learn of the end. */
  private endOfData(): void {
    const { time } = this.spec;
    if (time === undefined) {
      this.spec.onEndOfData(this.drained);
      return;
    }
    this.ending = true;
    time.end();
  }

  private processChunk(batch: Batch, gate: InputGate): void {
    const { chain, time } = this.spec;
    const end = Math.min(batch.records.length, this.next + this.chunk);
    this.next =
      time === undefined ? chain.processRange(batch.records, this.next, end) : time.processRange(batch, this.next, end);
    if (this.next < batch.records.length) return;
    this.batch = undefined;
    if (batch.restored === undefined) gate.processed(batch.channel);
  }

  /** What is left of the batch in hand is older than all that waits. */
  private storeRest(capture: InFlightCapture): void {
    const { batch } = this;
    const origin = batch?.restored ?? this.spec.origins?.[batch?.channel ?? -1];
    if (batch === undefined || origin === undefined) return;
    const { edge, producer, consumer } = origin;
    const rest = encodeRecords(batch.records.slice(this.next), batch.timestamps?.subarray(this.next));
    capture.batches.unshift({ edge, producer, consumer, batch: rest });
  }

  private poll(source: SourceOperator): boolean {
    if (this.sourceEnd === 'seen') {
      // Not together with the last poll: a flatMap may still have held elements of its records.
      this.sourceEnd = 'announced';
      this.endOfData();
      return true;
    }
    if (this.sourceEnd === 'announced' || this.waitingForSource) return false;
    switch (source.poll(this.spec.chain.collector, Math.min(this.chunk, POLL_MAX))) {
      case 'more':
        return true;
      case 'wait':
        this.waitingForSource = true;
        source.available().then(
          () => {
            this.waitingForSource = false;
            this.spec.wake();
          },
          (error: unknown) => this.spec.onFailure(error),
        );
        return false;
      case 'end':
        this.sourceEnd = 'seen';
        return true;
      default:
        throw new TypeError('a source reader must answer poll with "more", "wait" or "end"');
    }
  }

  /** For the chain too: outputs or sinks have no room. */
  blocked(): boolean {
    if (!this.spec.outputs.available) return true;
    const { sinks } = this.spec;
    for (let i = 0; i < sinks.length; i++) if (sinks[i]?.ready?.() !== undefined) return true;
    return false;
  }

  private waitForSinks(): void {
    if (this.waitingForSink) return;
    for (const sink of this.spec.sinks) {
      const ready = sink.ready?.();
      if (ready === undefined) continue;
      this.waitingForSink = true;
      ready.then(
        () => {
          this.waitingForSink = false;
          this.spec.wake();
        },
        (error: unknown) => this.spec.onFailure(error),
      );
      return;
    }
  }

  private adapt(tookMs: number): void {
    if (tookMs > CHUNK_LONG_MS) this.chunk = Math.max(1, this.chunk >> 1);
    else if (tookMs < CHUNK_SHORT_MS) this.chunk = Math.min(CHUNK_MAX, this.chunk * 2);
  }
}
