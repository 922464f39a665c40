import type { JobTurn } from './job-turn.ts';

/** First wait after a checkpoint could not be read; doubled with each failure. */
const RESTORE_RETRY_MS = 500;
const RESTORE_RETRY_MAX_MS = 30_000;

export function restoreRetryMs(turn: JobTurn, failures: number): number {
  const baseMs = Math.min(RESTORE_RETRY_MAX_MS, RESTORE_RETRY_MS * 2 ** Math.min(failures, 16));
  return baseMs * (0.9 + 0.2 * turn.context.random.next());
}
