import { expect, test } from 'vitest';
import { wantsReading } from './report.ts';
import type { RoundReport } from './stage/run-round.ts';

const round = (runningMs: number, gapMs: number, ...problems: string[]): RoundReport => ({
  ...{ scenario: 'x', seed: 1, workload: 'counts', sink: 'files', tookMs: 1, problems },
  faults: [
    {
      ...{ what: 'x', atMs: 0, detectedMs: 1, electedMs: 2, runningMs, adopted: false, gapMs, deployments: [] },
    },
  ],
});

test('the logs of rounds that broke a promise or stood still for long are kept, those of others are not', () => {
  expect(wantsReading(round(3_000, 1_000))).toBe(false);
  expect(wantsReading(round(65_000, 1_000))).toBe(true);
  expect(wantsReading(round(3_000, 32_000))).toBe(true);
  expect(wantsReading(round(3_000, 1_000, 'a line is missing'))).toBe(true);
});
