import { type Clock, sleep } from './clock.ts';

const STEP_MS = 10;
/** A timer that fires later than this after its time had to wait for work. */
const LATE_MS = 5;
const MAX_MS = 300;

/**
 * Resolves once the event loop has time: its timers fire when they should. After 300 ms at the latest, and at once
 * when `signal` aborts; never rejects. For what must be done and is not what everybody waits for.
 */
export async function untilCalm(clock: Clock, signal: AbortSignal): Promise<void> {
  const startMs = clock.nowMs();
  for (;;) {
    const beforeMs = clock.nowMs();
    await sleep(clock, STEP_MS, signal);
    const nowMs = clock.nowMs();
    if (signal.aborted || nowMs - beforeMs <= STEP_MS + LATE_MS || nowMs - startMs >= MAX_MS) return;
  }
}
