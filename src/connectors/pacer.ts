import type { Clock, Timer } from '../kernel/clock.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';

/** What was not used is kept for this long: a source that was held back does not flood afterwards. */
const BURST_MS = 100;
/** At high rates records come in portions of this much time, not one by one. */
const PORTION_MS = 10;

/**
 * Holds a source reader to a rate: a token bucket over an injected clock.
 */
export class Pacer {
  private readonly perMs: number;
  private readonly burst: number;
  private tokens: number;
  private lastMs: number;
  private waiting: { readonly timer: Timer; readonly promise: Promise<void>; readonly wake: () => void } | undefined;

  constructor(
    private readonly clock: Clock,
    ratePerSecond: number,
  ) {
    this.perMs = ratePerSecond / 1_000;
    this.burst = Math.max(1, this.perMs * BURST_MS);
    this.tokens = Math.min(1, this.burst);
    this.lastMs = clock.nowMs();
  }

  /** How many records may go out now, at most `wanted`; report with `used` how many did. */
  allowed(wanted: number): number {
    const nowMs = this.clock.nowMs();
    this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.lastMs) * this.perMs);
    this.lastMs = nowMs;
    return Math.min(wanted, Math.floor(this.tokens));
  }

  used(records: number): void {
    this.tokens -= records;
  }

  /** Resolves when the next portion is due, or on `close`. */
  available(): Promise<void> {
    if (this.waiting !== undefined) return this.waiting.promise;
    const portion = Math.max(1, this.perMs * PORTION_MS);
    const delayMs = Math.max(0, (portion - this.tokens) / this.perMs);
    let wake: () => void = () => {};
    const promise = new Promise<void>((resolve) => {
      wake = () => {
        this.waiting = undefined;
        resolve();
      };
    });
    this.waiting = { timer: this.clock.schedule(delayMs, wake), promise, wake };
    return promise;
  }

  close(): void {
    this.waiting?.timer.cancel();
    this.waiting?.wake();
  }
}

/** `ratePerSecond` is for all subtasks together; undefined for no limit. */
export function createPacer(clock: Clock, ratePerSecond: number | undefined, parallelism: number): Pacer | undefined {
  return ratePerSecond === undefined ? undefined : new Pacer(clock, ratePerSecond / parallelism);
}

export function checkRate(ratePerSecond: number | undefined): void {
  if (ratePerSecond === undefined || (Number.isFinite(ratePerSecond) && ratePerSecond > 0)) return;
  throw new InvalidArgumentError(`ratePerSecond is ${ratePerSecond}; it must be a positive number`, {
    hint: 'leave it out for no limit',
  });
}
