import { checkDuration } from './arguments.ts';
import type { Collector, Key, RuntimeContext } from './functions.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';

/** A span of event time: from `startMs` up to, not including, `endMs`. */
export interface TimeWindow {
  readonly startMs: number;
  readonly endMs: number;
}

/** Windows of one length that follow each other without gaps, by the time of the records. */
export class TumblingEventTimeWindows {
  private constructor(
    readonly sizeMs: number,
    readonly offsetMs: number,
  ) {}

  /** `offsetMs` moves all windows: those of a day begin at midnight UTC without one. */
  static of(sizeMs: number, offsetMs = 0): TumblingEventTimeWindows {
    checkDuration('the size of a window', sizeMs, { zero: false });
    if (!Number.isSafeInteger(sizeMs)) throw notWhole('size', sizeMs);
    if (!Number.isSafeInteger(offsetMs) || Math.abs(offsetMs) >= sizeMs) throw notWhole('offset', offsetMs);
    return new TumblingEventTimeWindows(sizeMs, offsetMs);
  }

  /** Where the window of a record of that time begins. */
  startOf(timestampMs: number): number {
    const { sizeMs, offsetMs } = this;
    return Math.floor((timestampMs - offsetMs) / sizeMs) * sizeMs + offsetMs;
  }
}

function notWhole(what: string, given: number): InvalidArgumentError {
  return new InvalidArgumentError(
    `the ${what} of a window is a whole number of milliseconds, an offset less than the size, not ${given}`,
  );
}

/** What a window function may know. */
export interface WindowContext extends RuntimeContext {
  readonly window: TimeWindow;
  currentWatermark(): number;
}

/** Handles all records of a key in a window at once, when the window has ended. */
export abstract class ProcessWindowFunction<I, O, K extends Key = Key> {
  open?(context: RuntimeContext): void;
  /** `elements` in the order in which they came. */
  abstract process(key: K, context: WindowContext, elements: readonly I[], out: Collector<O>): void;
  close?(): void;
}
