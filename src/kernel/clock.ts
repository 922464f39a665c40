/**
 * Time as a dependency, so that a test or the simulator decides when it passes.
 *
 * Two clocks that must not be mixed: `nowMs` is monotonic and decides (deadlines, intervals);
 * `wallMs` may jump and is only shown to people.
 */
export interface Timer {
  /** Stops the timer; harmless when it has already fired. */
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds, fractional, from an arbitrary origin. */
  nowMs(): number;
  /** Milliseconds since the Unix epoch. Never decides anything. */
  wallMs(): number;
  /** Calls `fn` once, `delayMs` from now. */
  schedule(delayMs: number, fn: () => void): Timer;
}

export class SystemClock implements Clock {
  nowMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  schedule(delayMs: number, fn: () => void): Timer {
    const handle = setTimeout(fn, delayMs);
    return { cancel: () => clearTimeout(handle) };
  }
}

/** Resolves after `delayMs`; resolves early (never rejects) when `signal` aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      timer.cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.schedule(delayMs, done);
    signal?.addEventListener('abort', done);
  });
}

/** Calls `fn` every `intervalMs` until cancelled; a slow `fn` delays the next call rather than piling up. */
export function every(clock: Clock, intervalMs: number, fn: () => void): Timer {
  let cancelled = false;
  let timer = clock.schedule(intervalMs, tick);
  function tick(): void {
    if (cancelled) return;
    fn();
    if (!cancelled) timer = clock.schedule(intervalMs, tick);
  }
  return {
    cancel() {
      cancelled = true;
      timer.cancel();
    },
  };
}
