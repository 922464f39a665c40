import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { canonicalKey, hashCanonicalKey, keyGroupFor } from './key-group-hash.ts';

/** Values of `Key`, nested. */
const { key } = fc.letrec<{ key: unknown }>((tie) => ({
  key: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.string({ unit: 'binary' }),
    fc.integer(),
    fc.double(),
    fc.bigInt(),
    fc.boolean(),
    fc.array(tie('key'), { maxLength: 4 }),
    fc.dictionary(fc.string({ maxLength: 5 }), tie('key'), { maxKeys: 4 }),
  ),
}));

/** The same value with every object's fields in the opposite order, made of fresh objects. */
function reordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reordered);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([name, field]) => [name, reordered(field)]),
  );
}

test('these hashes are part of the storage format and never change', () => {
  const pinned: [unknown, number][] = [
    ['', 3651860435],
    ['a', 1229274632],
    ['hello', 1250600450],
    ['Hello World', 2556626313],
    ['grüße 😀', 4147861380],
    ['\u0000x', 3689255901],
    [0, 878260115],
    [1, 1134906287],
    [-1, 1831862890],
    [128, 279489566],
    [2147483647, 3988667572],
    [2147483648, 36019027],
    [0.5, 292527612],
    [NaN, 1948792805],
    [Infinity, 4285843380],
    [1n, 4133639939],
    [-1180591620717411303424n, 1491413309],
    [true, 668265263],
    [false, 374761393],
    [[], 3925443577],
    [[1, 'a'], 943921527],
    [{ b: 1, a: [true] }, 1980334433],
  ];
  expect(pinned.map(([value]) => [value, hashCanonicalKey(canonicalKey(value))])).toEqual(pinned);
});

test('keys equal by value have one canonical form and one key group, whatever the order of fields', () => {
  fc.assert(
    fc.property(key, fc.integer({ min: 1, max: 32_768 }), (value, maxParallelism) => {
      const twin = reordered(value);
      expect(Object.is(canonicalKey(twin), canonicalKey(value))).toBe(true);
      const group = keyGroupFor(value, maxParallelism);
      expect(keyGroupFor(twin, maxParallelism)).toBe(group);
      expect(Number.isInteger(group) && group >= 0 && group < maxParallelism).toBe(true);
    }),
  );
});

test('keys that differ by value or type have different canonical forms', () => {
  const different: unknown[] = [
    1,
    '1',
    1n,
    true,
    [1],
    ['1'],
    [1n],
    [[1]],
    [],
    {},
    '',
    [''],
    ['', ''],
    '[]',
    '{}',
    [true],
    'true',
    0.1,
    -1,
    1e21,
    { a: 1 },
    { a: '1' },
    { b: 1 },
    { a: 1, b: 1 },
    ['a', 1],
    [{ a: 1 }],
    { a: [1] },
    { 'a:1': 1 },
    { '': 1 },
    ['s1:a'],
    ['a', 's1:a'],
    ['as1:a'],
    '\u0000',
    '\u0000s',
    '\u0000[]',
    '\u0000s\u0000[]',
    NaN,
    Infinity,
    'NaN',
    false,
  ];
  expect(new Set(different.map(canonicalKey)).size).toBe(different.length);
});

test('two random keys share a canonical form exactly when they are equal by value', () => {
  fc.assert(
    fc.property(key, key, (a, b) => {
      expect(canonicalKey(a) === canonicalKey(b)).toBe(isDeepStrictEqual(positiveZero(a), positiveZero(b)));
    }),
    { numRuns: 2_000 },
  );
});

/** With 0 for -0, which are one key. */
function positiveZero(value: unknown): unknown {
  if (value === 0) return 0;
  if (Array.isArray(value)) return value.map(positiveZero);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, positiveZero(field)]));
}

test('minus zero is zero, also inside a composite key', () => {
  expect(Object.is(canonicalKey(-0), 0)).toBe(true);
  expect(keyGroupFor(-0, 128)).toBe(keyGroupFor(0, 128));
  expect(canonicalKey([-0])).toBe(canonicalKey([0]));
});

test('a key of an unsupported type is refused with its type and its place', () => {
  class Point {
    x = 1;
  }
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  const refused: [unknown, RegExp][] = [
    [undefined, /^key is undefined/],
    [null, /^key is null/],
    [Symbol('s'), /^key is a symbol/],
    [() => 1, /^key is a function/],
    [new Date(0), /^key is an instance of Date/],
    [new Uint8Array(1), /^key is an instance of Uint8Array/],
    [new Map(), /^key is an instance of Map/],
    [new Point(), /^key is an instance of Point/],
    [[1, null], /^key\[1\] is null/],
    [{ user: { id: undefined } }, /^key\.user\.id is undefined/],
    [cyclic, /refers to itself/],
  ];
  for (const [value, message] of refused) {
    expect(() => keyGroupFor(value, 128)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => keyGroupFor(value, 128)).toThrow(message);
  }
});

test('sequential numbers and numbered strings spread evenly over the key groups', () => {
  for (const make of [(i: number) => i, (i: number) => `user-${i}`, (i: number) => [i], (i: number) => i * 1e10]) {
    const counts = new Array<number>(128).fill(0);
    for (let i = 0; i < 128_000; i++) {
      const group = keyGroupFor(make(i), 128);
      counts[group] = (counts[group] ?? 0) + 1;
    }
    expect(Math.min(...counts)).toBeGreaterThan(850);
    expect(Math.max(...counts)).toBeLessThan(1_150);
  }
});
