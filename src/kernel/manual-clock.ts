import type { Clock, Timer } from './clock.ts';

interface Scheduled {
  readonly dueMs: number;
  readonly sequence: number;
  readonly fn: () => void;
}

/**
 * A clock that stands still until told to move. `advance` fires due timers in order of their time,
 * then of their creation, and lets promises settle in between, so a test reads like a timeline.
 */
export class ManualClock implements Clock {
  private now: number;
  private sequence = 0;
  private readonly timers = new Set<Scheduled>();

  constructor(
    startMs = 0,
    private readonly wallOriginMs = 1_700_000_000_000,
  ) {
    this.now = startMs;
  }

  nowMs(): number {
    return this.now;
  }

  wallMs(): number {
    return this.wallOriginMs + this.now;
  }

  schedule(delayMs: number, fn: () => void): Timer {
    const timer: Scheduled = { dueMs: this.now + Math.max(0, delayMs), sequence: this.sequence++, fn };
    this.timers.add(timer);
    return { cancel: () => void this.timers.delete(timer) };
  }

  /** How many timers are waiting; a test that ends with more than it began leaks. */
  get pending(): number {
    return this.timers.size;
  }

  async advance(byMs: number): Promise<void> {
    const target = this.now + byMs;
    await settle();
    for (let next = this.next(target); next !== undefined; next = this.next(target)) {
      this.timers.delete(next);
      this.now = Math.max(this.now, next.dueMs);
      next.fn();
      await settle();
    }
    this.now = target;
    await settle();
  }

  private next(untilMs: number): Scheduled | undefined {
    let best: Scheduled | undefined;
    for (const timer of this.timers) {
      if (timer.dueMs > untilMs) continue;
      if (
        best === undefined ||
        timer.dueMs < best.dueMs ||
        (timer.dueMs === best.dueMs && timer.sequence < best.sequence)
      )
        best = timer;
    }
    return best;
  }
}

/** Lets every promise that can settle do so. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
}
