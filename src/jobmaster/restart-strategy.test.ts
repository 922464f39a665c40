import { expect, test } from 'vitest';
import type { RestartStrategyConfig } from '../contracts/job-graph.ts';
import type { Random } from '../kernel/random.ts';
import { decideRestart, NO_FAILURES, type RestartDecision } from './restart-strategy.ts';

const still: Random = { next: () => 0.5, int: () => 0, hex: () => '' };
const EXPONENTIAL = {
  type: 'exponential-delay',
  initialBackoffMs: 1_000,
  maxBackoffMs: 60_000,
  backoffMultiplier: 1.5,
  resetBackoffThresholdMs: 3_600_000,
  jitterFactor: 0.1,
} as const;

/** The decisions for failures at the given times. */
function decisions(config: RestartStrategyConfig, timesMs: readonly number[], random = still): RestartDecision[] {
  let history = NO_FAILURES;
  return timesMs.map((nowMs) => {
    const next = decideRestart(config, history, nowMs, random);
    history = next.history;
    return next.decision;
  });
}

const delays = (all: readonly RestartDecision[]) =>
  all.map((decision) => (decision.kind === 'restart' ? decision.delayMs : 'give-up'));

test('none never restarts', () => {
  expect(delays(decisions({ type: 'none' }, [0]))).toEqual(['give-up']);
});

test('fixed-delay restarts as often as it says, always after the same wait', () => {
  expect(delays(decisions({ type: 'fixed-delay', attempts: 2, delayMs: 70 }, [0, 1, 2]))).toEqual([70, 70, 'give-up']);
  expect(delays(decisions({ type: 'fixed-delay', attempts: 0, delayMs: 70 }, [0]))).toEqual(['give-up']);
});

test('failure-rate bears so many failures in any interval, and forgets older ones', () => {
  const config = {
    type: 'failure-rate',
    maxFailuresPerInterval: 2,
    failureRateIntervalMs: 1_000,
    delayMs: 5,
  } as const;
  expect(delays(decisions(config, [0, 600, 1_001, 1_700]))).toEqual([5, 5, 5, 5]);
  expect(delays(decisions(config, [0, 600, 1_000]))).toEqual([5, 5, 'give-up']);
});

test('exponential-delay grows to its maximum, without a limit on attempts', () => {
  const times = Array.from({ length: 14 }, (_, i) => i * 100_000);
  const waits = delays(decisions(EXPONENTIAL, times));
  expect(waits.slice(0, 4)).toEqual([1_000, 1_500, 2_250, 3_375]);
  expect(waits.at(-1)).toBe(60_000);
});

test('exponential-delay begins small again after a quiet time, counted from when the job was due to run', () => {
  const quiet = 3_600_000;
  expect(delays(decisions(EXPONENTIAL, [0, 10_000, 10_000 + 1_500 + quiet - 1]))).toEqual([1_000, 1_500, 2_250]);
  expect(delays(decisions(EXPONENTIAL, [0, 10_000, 10_000 + 1_500 + quiet]))).toEqual([1_000, 1_500, 1_000]);
});

test('exponential-delay gives up after its attempts, and a quiet time gives them back', () => {
  const config = { ...EXPONENTIAL, attemptsBeforeResetBackoff: 2 };
  expect(delays(decisions(config, [0, 1, 2]))).toEqual([1_000, 1_500, 'give-up']);
  expect(delays(decisions(config, [0, 1, 4_000_000]))).toEqual([1_000, 1_500, 1_000]);
});

test('jitter moves a wait by its factor at most, both ways, and never over the maximum', () => {
  const low = { ...still, next: () => 0 };
  const high = { ...still, next: () => 1 };
  expect(delays(decisions(EXPONENTIAL, [0], low))).toEqual([900]);
  expect(delays(decisions(EXPONENTIAL, [0], high))).toEqual([1_100]);
  expect(delays(decisions({ ...EXPONENTIAL, maxBackoffMs: 1_000 }, [0], high))).toEqual([1_000]);
});
