import { expect, test } from 'vitest';
import type { BenchResult } from './benchmark.ts';
import { jsonLine, resultLine, table } from './report.ts';

const results: readonly BenchResult[] = [
  { name: 'fast / slow', value: 0.95, unit: 'x', target: { atLeast: 0.9 }, against: 'slow' },
  { name: 'pause', value: 25, unit: 'ms', target: { atMost: 20 } },
  { name: 'size', value: 12_345, unit: 'bytes' },
];

test('machines get one line with every figure and whether its target holds', () => {
  const line = jsonLine('demo', results.map(resultLine));
  expect(line).not.toContain('\n');
  expect(JSON.parse(line)).toEqual({
    bench: 'demo',
    results: [
      { name: 'fast / slow', value: 0.95, unit: 'x', target: 0.9, better: 'higher', holds: true },
      { name: 'pause', value: 25, unit: 'ms', target: 20, better: 'lower', holds: false },
      { name: 'size', value: 12_345, unit: 'bytes' },
    ],
  });
});

test('people get a table that says what was missed', () => {
  const [, fast, pause, size] = table(results).split('\n');
  expect(fast).toMatch(/fast \/ slow +0\.95 x +>= 0\.9 +holds +slow/);
  expect(pause).toMatch(/pause +25\.00 ms +<= 20 +MISSED/);
  expect(size).toMatch(/size +12,345 bytes$/);
});
