import { type Clock, every, type Timer } from '../../kernel/clock.ts';
import type { ReceiverEnds } from '../chain.ts';
import type { Element } from './element.ts';
import type { TimedChain } from './timed-chain.ts';
import { type ValveOutput, WatermarkValve } from './watermark-valve.ts';

export interface TaskTimeSpec {
  readonly clock: Clock;
  readonly chain: TimedChain;
  /** Which input of the head operator each channel feeds. */
  readonly inputOf: readonly number[];
  readonly element: Element;
  /** 0: watermarks only at the end of the data. */
  readonly watermarkIntervalMs: number;
  /** Whether this task makes watermarks. */
  readonly makesWatermarks: boolean;
  readonly wake: () => void;
}

/**
 * Event time and timers of one task, as its loop uses them. What clocks bring is only noted here and
 * done when the loop comes to it: between two records, with room in the outputs.
 */
export class TaskTime {
  /** There is something to do about time. Looked at before every step. */
  due = false;
  private readonly valve: WatermarkValve;
  private watermarksDue = false;
  private timersDue = false;
  private ended = false;
  private ticking: Timer | undefined;

  constructor(private readonly spec: TaskTimeSpec) {
    this.valve = new WatermarkValve(spec.inputOf.length);
    if (!spec.makesWatermarks || spec.watermarkIntervalMs === 0) return;
    this.ticking = every(spec.clock, spec.watermarkIntervalMs, () => {
      this.watermarksDue = true;
      this.wake();
    });
  }

  /** Called by operators. */
  processingTimeDue(): void {
    this.timersDue = true;
    this.wake();
  }

  /** Does what is due; the chain may be paused after that. */
  handleDue(nowMs: number): void {
    this.due = false;
    const { chain } = this.spec;
    if (this.timersDue) {
      this.timersDue = false;
      chain.fireProcessingTime();
      // One thing at a time: nothing may follow what has paused.
      this.due = this.watermarksDue;
      return;
    }
    this.watermarksDue = false;
    if (!this.ended) chain.periodic(nowMs);
  }

  /** `timestampMs`: NaN when the channel has become idle. */
  watermark(channel: number, timestampMs: number): void {
    const outputs = Number.isNaN(timestampMs)
      ? this.valve.markIdle(channel)
      : this.valve.watermark(channel, timestampMs);
    this.pass(outputs);
  }

  /** As the loop processes records of a batch. */
  processRange(
    batch: {
      readonly records: readonly unknown[];
      readonly channel: number;
      readonly timestamps?: Float64Array | undefined;
    },
    from: number,
    to: number,
  ): number {
    this.spec.element.input = this.spec.inputOf[batch.channel] ?? 0;
    return this.spec.chain.processTimed(batch.records, batch.timestamps, from, to);
  }

  /** As the loop's, for a producer in this thread: `line` knows when its record happened. */
  receiver(
    channel: number,
    line: { readonly element: { readonly timestampMs: number } | undefined },
    ends: ReceiverEnds,
  ): (record: unknown) => void {
    const { chain, inputOf } = this.spec;
    return chain.timedReceiver(ends, { input: inputOf[channel] ?? 0, from: line.element });
  }

  /** All data has been processed: event time is at its end. Once. */
  end(): void {
    if (this.ended) return;
    this.close();
    this.ended = true;
    this.spec.chain.end();
  }

  close(): void {
    this.ticking?.cancel();
    this.ticking = undefined;
  }

  private pass(outputs: readonly ValveOutput[]): void {
    for (const output of outputs) {
      this.spec.chain.signal(output.kind === 'idle' ? 'idle' : output.timestampMs);
    }
  }

  private wake(): void {
    this.due = true;
    this.spec.wake();
  }
}
