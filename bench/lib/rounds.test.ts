import { expect, test } from 'vitest';
import { measureRounds, type Measurement, median, speedup } from './rounds.ts';

test('every contender runs once in each round, and none is always first', async () => {
  const order: string[] = [];
  const contender = (name: string) => ({
    name,
    run: () => {
      order.push(name);
      return 1;
    },
  });
  const measured = await measureRounds([contender('a'), contender('b')], { rounds: 3, warmupRounds: 1, clock: 'wall' });
  expect(order).toEqual(['a', 'b', 'b', 'a', 'a', 'b', 'b', 'a']);
  expect(measured.map(({ name, samples }) => [name, samples.length])).toEqual([
    ['a', 3],
    ['b', 3],
  ]);
});

test('a speedup is the median of the ratios within each round', () => {
  const of = (samples: readonly number[]): Measurement => ({ name: 'x', nsPerOp: median(samples), samples });
  // The machine was three times as slow in the second round, for both.
  expect(speedup(of([10, 30, 10]), of([20, 60, 20]))).toBe(2);
});
