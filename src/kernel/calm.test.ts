import { expect, test } from 'vitest';
import { untilCalm } from './calm.ts';
import { ManualClock } from './manual-clock.ts';

async function waitsFor(latenessMs: (step: number) => number): Promise<number> {
  const clock = new ManualClock();
  let timers = 0;
  // A timer that fires late: as on a thread that was busy meanwhile.
  const busy = {
    nowMs: () => clock.nowMs(),
    wallMs: () => clock.wallMs(),
    schedule: (delayMs: number, fn: () => void) => clock.schedule(delayMs + latenessMs(timers++), fn),
  };
  const startMs = clock.nowMs();
  let doneMs: number | undefined;
  void untilCalm(busy, new AbortController().signal).then(() => {
    doneMs = clock.nowMs();
  });
  while (doneMs === undefined) await clock.advance(1);
  return doneMs - startMs;
}

test('a thread with time is calm at once', async () => {
  expect(await waitsFor(() => 0)).toBe(10);
});

test('a busy thread is waited for until a timer fires in time', async () => {
  expect(await waitsFor((step) => (step < 2 ? 50 : 1))).toBe(131);
});

test('a thread that never gets calm is not waited for for ever', async () => {
  expect(await waitsFor(() => 40)).toBe(300);
});
