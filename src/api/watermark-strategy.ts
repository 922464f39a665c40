import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkDuration, checkFunction } from './arguments.ts';

/**
 * When a record happened, in milliseconds since the epoch. `recordTimestampMs` is what the record had
 * before, undefined when nothing.
 */
export type TimestampAssigner<T> = (value: T, recordTimestampMs: number | undefined) => number;

/**
 * How event time is read from records: their timestamps, and watermarks that say how far it is.
 *
 * A watermark of time t says that no record of time t or before is still to come. Watermarks are made
 * every `pipeline.auto-watermark-interval` and at the end of the data, where they jump to the end of time.
 */
export class WatermarkStrategy<T> {
  private constructor(
    /** Undefined: the timestamps that the records have already. */
    readonly timestampAssigner: TimestampAssigner<T> | undefined,
    readonly outOfOrdernessMs: number,
    readonly idleTimeoutMs: number | undefined,
    /** False: timestamps only, watermarks only at the end. */
    readonly hasWatermarks: boolean,
  ) {}

  /** Records may be late by up to `outOfOrdernessMs`, seen from the latest so far. */
  static forBoundedOutOfOrderness<T>(outOfOrdernessMs: number): WatermarkStrategy<T> {
    checkDuration('the bound of out-of-orderness', outOfOrdernessMs, { zero: true });
    return new WatermarkStrategy<T>(undefined, outOfOrdernessMs, undefined, true);
  }

  /** Timestamps never go back within one subtask. */
  static forMonotonousTimestamps<T>(): WatermarkStrategy<T> {
    return new WatermarkStrategy<T>(undefined, 0, undefined, true);
  }

  /** Timestamps without watermarks: event time stands still until the end of the data. */
  static noWatermarks<T>(): WatermarkStrategy<T> {
    return new WatermarkStrategy<T>(undefined, 0, undefined, false);
  }

  withTimestampAssigner<R extends T = T>(assigner: TimestampAssigner<R>): WatermarkStrategy<R> {
    checkFunction('withTimestampAssigner()', assigner);
    return new WatermarkStrategy<R>(assigner, this.outOfOrdernessMs, this.idleTimeoutMs, this.hasWatermarks);
  }

  /** A subtask without a record for `timeoutMs` no longer holds up the others' event time. */
  withIdleness(timeoutMs: number): WatermarkStrategy<T> {
    checkDuration('the idle timeout', timeoutMs, { zero: false });
    return new WatermarkStrategy<T>(this.timestampAssigner, this.outOfOrdernessMs, timeoutMs, this.hasWatermarks);
  }
}

export function checkStrategy<T>(what: string, strategy: WatermarkStrategy<T>): WatermarkStrategy<T> {
  if (strategy instanceof WatermarkStrategy) return strategy;
  throw new InvalidArgumentError(`${what} needs a WatermarkStrategy`, {
    hint: 'For example WatermarkStrategy.forBoundedOutOfOrderness(1_000).withTimestampAssigner((r) => r.timeMs).',
  });
}
