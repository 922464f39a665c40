import type { Stamping, WindowAccess } from '../chain.ts';
import type { Element } from './element.ts';

/** How far event time is, on its way through a task: a watermark's time, or that nobody knows for now. */
export type TimeSignal = number | 'idle';

/** What the chain gives an operator that has to do with time. */
export interface TimedOperatorOutput {
  emit(record: unknown): void;
  /** To the side output of that id; nowhere when nobody reads it. */
  emitSide(tag: string, record: unknown): void;
  readonly element: Element;
  /** Asked between two timers: true when outputs have no room or the slice is over. */
  shouldPause(): boolean;
}

/** An operator that makes or uses time. Called between records only, but for `process`. */
export interface TimedOperator {
  /** Once, before anything else. */
  connect(output: TimedOperatorOutput): void;
  process(record: unknown): void;
  /** What a chain may do instead of calling `process`. */
  readonly window?: WindowAccess;
  /** Records may go to a side output at once, and not only when time goes on. */
  readonly emitsLate?: boolean;
  /** Of an operator that does nothing to records but stamp them: then the chain does that, and never calls `process`. */
  stamping?(element: Element): Stamping;
  /**
   * Does what is due at a watermark. False when it paused before it was done: it is called again with
   * the same watermark before anything else is.
   */
  advance(watermarkMs: number): boolean;
  /** It may keep records and change them: it must be given its own. */
  readonly keepsRecords: boolean;
  /** Whether signals from upstream go on downstream, or this operator makes its own. */
  readonly makesWatermarks: boolean;
  /** Called every watermark interval: what the operator has to say about time by now. */
  periodic?(nowMs: number): readonly TimeSignal[];
  /** Fires processing-time timers that are due. False when it paused before it was done. */
  fireProcessingTime?(): boolean;
}
