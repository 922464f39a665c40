import type { WatermarkStrategy } from '../../api/watermark-strategy.ts';
import { InvalidArgumentError, MillraceError } from '../../kernel/errors.ts';
import type { Stamping } from '../chain.ts';
import { type OperatorSite, userCodeError } from '../operator-error.ts';
import { type Element, MIN_WATERMARK } from '../time/element.ts';
import type { TimedOperator, TimeSignal } from '../time/timed-operator.ts';

/**
 * Gives records their timestamps and says, every interval, how far event time is. Without state: after
 * a restore the first records bring event time back.
 */
export class TimestampsOperator implements TimedOperator {
  readonly makesWatermarks = true;
  readonly keepsRecords = false;
  private greatestMs = MIN_WATERMARK;
  private emittedMs = MIN_WATERMARK;
  private seen = false;
  private idle = false;
  /** Time without records, counted in rounds that this task really took: one held up downstream is not idle. */
  private quietMs = 0;
  private lastRoundMs: number | undefined;

  constructor(
    private readonly strategy: WatermarkStrategy<unknown>,
    private readonly site: OperatorSite,
    private readonly intervalMs: number,
  ) {}

  connect(): void {
    // Nothing: see `stamping`.
  }

  process(record: unknown): void {
    throw new MillraceError('INTERNAL', `chains stamp records themselves, also ${typeof record} ones`);
  }

  /** What a chain needs to do the work of this operator between its neighbours. */
  stamping(element: Element): Stamping {
    return {
      assign: this.strategy.timestampAssigner,
      element,
      saw: (given, record) => this.saw(given, record),
    };
  }

  advance(): boolean {
    return true;
  }

  periodic(nowMs: number): readonly TimeSignal[] {
    const idle = this.isIdle(nowMs);
    if (idle) {
      if (this.idle) return [];
      this.idle = true;
      return ['idle'];
    }
    const watermarkMs = this.greatestMs - this.strategy.outOfOrdernessMs - 1;
    const advanced = watermarkMs > this.emittedMs && this.strategy.hasWatermarks;
    // After a pause the old watermark is said again: consumers wait for this task from then on.
    const awake = this.idle && this.emittedMs > MIN_WATERMARK;
    this.idle = false;
    if (!advanced && !awake) return [];
    if (advanced) this.emittedMs = watermarkMs;
    return [this.emittedMs];
  }

  private isIdle(nowMs: number): boolean {
    const elapsedMs = this.lastRoundMs === undefined ? 0 : nowMs - this.lastRoundMs;
    this.lastRoundMs = nowMs;
    const { idleTimeoutMs } = this.strategy;
    if (this.seen || idleTimeoutMs === undefined) {
      this.seen = false;
      this.quietMs = 0;
      return false;
    }
    this.quietMs += Math.min(elapsedMs, 2 * this.intervalMs);
    return this.quietMs >= idleTimeoutMs;
  }

  private saw(given: unknown, record: unknown): number {
    if (typeof given !== 'number' || !Number.isFinite(given)) {
      throw userCodeError(this.site, noTimestamp(this.strategy.timestampAssigner !== undefined, given), record);
    }
    const timestampMs = Math.floor(given);
    if (timestampMs > this.greatestMs) this.greatestMs = timestampMs;
    this.seen = true;
    return timestampMs;
  }
}

function noTimestamp(assigned: boolean, timestampMs: unknown): InvalidArgumentError {
  if (assigned) {
    return new InvalidArgumentError(`a timestamp is a number of milliseconds, not ${String(timestampMs)}`);
  }
  return new InvalidArgumentError('the record has no timestamp', { hint: 'Use withTimestampAssigner().' });
}
