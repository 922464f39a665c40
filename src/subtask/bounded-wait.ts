import type { Clock } from '../kernel/clock.ts';
import { asError, MillraceError } from '../kernel/errors.ts';

/**
 * Waits for `work` but no longer than `limitMs`, and never rejects: gives the failure instead, or a
 * `TIMEOUT`. What goes on after that has an owner elsewhere or ends with the process.
 */
export function settleWithin(clock: Clock, limitMs: number, work: Promise<unknown>): Promise<Error | undefined> {
  return new Promise((resolve) => {
    const timer = clock.schedule(limitMs, () => resolve(new MillraceError('TIMEOUT', `not done within ${limitMs} ms`)));
    const settled = (failure: Error | undefined) => {
      timer.cancel();
      resolve(failure);
    };
    work.then(
      () => settled(undefined),
      (error: unknown) => settled(asError(error)),
    );
  });
}
