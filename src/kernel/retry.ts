import { type Clock, sleep } from './clock.ts';
import { MillraceError } from './errors.ts';
import type { Random } from './random.ts';

export interface Backoff {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Each wait is the last one times this. */
  readonly multiplier: number;
}

export const QUICK_BACKOFF: Backoff = { initialMs: 50, maxMs: 1_000, multiplier: 2 };

/** The wait before attempt `attempt` (0 = first retry), with up to 20 % jitter. */
export function backoffMs(backoff: Backoff, attempt: number, random: Random): number {
  const base = Math.min(backoff.maxMs, backoff.initialMs * backoff.multiplier ** attempt);
  return base * (0.9 + 0.2 * random.next());
}

/**
 * Calls `work` until it resolves, `retryable` says no, or `signal` aborts. `onRetry` is told of
 * every failure, so that no retry is silent.
 */
export async function retry<T>(
  deps: { readonly clock: Clock; readonly random: Random },
  options: {
    readonly backoff: Backoff;
    readonly retryable: (error: unknown) => boolean;
    readonly onRetry: (error: unknown, attempt: number, waitMs: number) => void;
    readonly signal?: AbortSignal;
  },
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    if (options.signal?.aborted) throw new MillraceError('CLOSED', 'stopped while retrying');
    try {
      return await work();
    } catch (error) {
      if (!options.retryable(error) || options.signal?.aborted) throw error;
      const waitMs = backoffMs(options.backoff, attempt, deps.random);
      options.onRetry(error, attempt, waitMs);
      await sleep(deps.clock, waitMs, options.signal);
    }
  }
}
