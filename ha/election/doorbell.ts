import type { Clock } from '../../src/kernel/clock.ts';

/** Wakes the one who waits: with news, or after a while, or when all is over. */
export class Doorbell {
  private wake: (() => void) | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly signal: AbortSignal,
  ) {}

  ring(): void {
    this.wake?.();
  }

  /** Resolves when it rings, when the signal aborts, and after `waitMs` at the latest. */
  wait(waitMs: number): Promise<void> {
    const { signal } = this;
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.clock.schedule(waitMs, done);
      this.wake = done;
      signal.addEventListener('abort', done);
    });
  }
}
