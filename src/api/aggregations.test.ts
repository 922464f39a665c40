import { expect, test } from 'vitest';
import { aggregate } from './aggregations.ts';

test('sum, min and max update the field and keep the rest of the first record', () => {
  const first = ['a', 5, 'first'] as const;
  const second = ['b', 3, 'second'] as const;
  expect(aggregate('sum', 1)(first, second)).toEqual(['a', 8, 'first']);
  expect(aggregate('min', 1)(first, second)).toEqual(['a', 3, 'first']);
  expect(aggregate('max', 1)(first, second)).toBe(first);
  expect(aggregate('max', 1)(second, first)).toEqual(['b', 5, 'second']);
  const record = { word: 'a', count: 2n, at: 1 };
  expect(aggregate('sum', 'count')(record, { word: 'b', count: 3n, at: 2 })).toEqual({ word: 'a', count: 5n, at: 1 });
  expect([first, record.count]).toEqual([['a', 5, 'first'], 2n]);
});

test('minBy and maxBy keep the whole record, the first among equals', () => {
  const [a, b, c] = [
    { v: 2, id: 'a' },
    { v: 1, id: 'b' },
    { v: 2, id: 'c' },
  ];
  expect(aggregate('minBy', 'v')(a, b)).toBe(b);
  expect(aggregate('minBy', 'v')(a, c)).toBe(a);
  expect(aggregate('maxBy', 'v')(a, c)).toBe(a);
  expect(aggregate('maxBy', 'v')(b, c)).toBe(c);
});

test('a field that is no number ends the task with its name, not with wrong sums', () => {
  expect(() => aggregate('sum', 0)(['a', 1], ['b', 1])).toThrow(/sum\(0\): the field is not a number but "a"/);
  expect(() => aggregate('max', 'n')({ n: 1 }, {})).toThrow(/max\("n"\): .* undefined/);
  expect(() => aggregate('sum', 'n')({ n: 1 }, { n: 1n })).toThrow(/mix number and bigint/);
  expect(() => aggregate('sum', -1)).toThrow(/position in a tuple/);
  expect(() => aggregate('sum', '')).toThrow(/position in a tuple/);
});
