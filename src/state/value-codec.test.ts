import fc from 'fast-check';
import { expect, test } from 'vitest';
import { admit, cloneValue } from './state-value.ts';
import { ValueWriter } from './value-codec.ts';
import { END, ValueReader } from './value-reader.ts';
import { structuredValue } from './testing/arbitraries.ts';

function roundTrip(values: readonly unknown[], writer = new ValueWriter(1)): unknown[] {
  for (const value of values) writer.write(value);
  const reader = new ValueReader(writer.toBytes());
  const back = values.map(() => reader.read());
  expect(reader.done).toBe(true);
  return back;
}

test('every structured value comes back as it was', () => {
  fc.assert(
    fc.property(fc.array(structuredValue, { maxLength: 8 }), (values) => {
      expect(roundTrip(values)).toStrictEqual(values);
    }),
    { numRuns: 500 },
  );
});

test('the odd corners of JavaScript data survive', () => {
  const odd = [
    -0,
    0,
    NaN,
    Infinity,
    -Infinity,
    127,
    128,
    -1,
    2147483647,
    -2147483648,
    2147483648,
    Number.MAX_SAFE_INTEGER,
    5e-324,
    undefined,
    null,
    true,
    false,
    '',
    'a',
    'ä',
    '\u0000',
    '\ud800',
    'x\udc00y',
    '😀'.repeat(20),
    'x'.repeat(10_000),
    'é'.repeat(10_000),
    0n,
    -1n,
    2n ** 200n,
    -(2n ** 63n),
    new Date(0),
    new Date(NaN),
    new Uint8Array([1, 2, 255]),
    new Float64Array([-0, NaN, 1.5]),
    new BigInt64Array([-1n]),
    new Map<unknown, unknown>([[{ a: 1 }, undefined]]),
    new Set([1, '1']),
    [],
    [[]],
    {},
    { a: undefined },
    { '': 1 },
    { a: { a: { a: 1 } } },
    [undefined, null],
  ];
  expect(roundTrip(odd)).toStrictEqual(odd);
  const [own] = roundTrip([JSON.parse('{"__proto__":1}')]) as [object];
  expect(Object.hasOwn(own, '__proto__')).toBe(true);
  expect(Object.getPrototypeOf(own)).toBe(Object.prototype);
});

test('field names are written once, and shapes that differ only in where a name ends are told apart', () => {
  const one = new ValueWriter();
  one.write({ temperature: 1, humidity: 2 });
  const first = one.bytesWritten;
  one.write({ temperature: 3, humidity: 4 });
  expect(one.bytesWritten - first).toBe(4);
  const values = [{ a: 1, b: 2 }, { ab: 1 }, { a: 1, b: 2 }, { b: 2, a: 1 }, { '1:a': 1 }, {}, {}];
  expect(roundTrip(values).map((v) => JSON.stringify(v))).toEqual(values.map((v) => JSON.stringify(v)));
});

test('a list ends where its writer said, and a reused writer starts afresh', () => {
  const writer = new ValueWriter();
  writer.write({ shape: 'forgotten' });
  writer.reset();
  writer.writeCount(2 ** 40);
  writer.write({ shape: 1 });
  writer.writeEnd();
  const reader = new ValueReader(writer.toBytes());
  expect([reader.readCount(), reader.readOrEnd(), reader.readOrEnd()]).toEqual([2 ** 40, { shape: 1 }, END]);
});

test('values that are not structured data are refused by name, on entry and by the writer', () => {
  class Counter {
    n = 1;
  }
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  for (const value of [
    () => 1,
    Symbol('s'),
    new Counter(),
    [new Counter()],
    { c: /x/ },
    new Map([[1, new Error('e')]]),
    cyclic,
  ]) {
    expect(() => admit(value)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => new ValueWriter().write(value)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  }
  expect(() => admit(new Counter())).toThrow(/an instance of Counter/);
});

test('damaged bytes end in a CORRUPT error, never in a hang or exhausted memory', () => {
  fc.assert(
    fc.property(structuredValue, fc.nat(), fc.integer({ min: 1, max: 255 }), (value, at, flip) => {
      const writer = new ValueWriter();
      writer.write(value);
      const bytes = writer.toBytes();
      const position = at % bytes.length;
      bytes[position] = (bytes[position] ?? 0) ^ flip;
      try {
        new ValueReader(bytes).read();
      } catch (error) {
        expect(error).toMatchObject({ code: 'CORRUPT' });
      }
    }),
    { numRuns: 500 },
  );
});

test('entering state and copying keep a value equal; a copy shares nothing that can change', () => {
  fc.assert(
    fc.property(structuredValue, (value) => {
      expect(admit(value)).toStrictEqual(value);
      const copy = cloneValue(value);
      expect(copy).toStrictEqual(value);
      if (typeof value === 'object' && value !== null) expect(copy).not.toBe(value);
    }),
  );
});

test('a value without long strings enters state without being copied', () => {
  const value = { word: 'short', counts: [1, 2] };
  expect(admit(value)).toBe(value);
});
