import { expect, test } from 'vitest';
import { percentile } from './percentile.ts';

test('percentiles are values that were measured', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  expect([percentile(hundred, 0.5), percentile(hundred, 0.99)]).toEqual([50, 99]);
  expect([percentile([7, 3, 5], 0.5), percentile([7, 3, 5], 0.99)]).toEqual([5, 7]);
  expect(percentile([4], 0.5)).toBe(4);
  expect(percentile([], 0.5)).toBeNaN();
});
