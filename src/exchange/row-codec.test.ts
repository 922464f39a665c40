import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isMillraceError } from '../kernel/errors.ts';
import { rowCodec } from './row-codec.ts';

/** Cases per property; 300,000 in `npm run properties`. */
const RUNS = Number(process.env.MILLRACE_PROPERTY_RUNS ?? 300);
const LONG_RUN_MS = 6 * 3_600_000;

function roundTrip(records: readonly unknown[]): readonly unknown[] {
  const encoder = rowCodec.createEncoder();
  for (const record of records) encoder.append(record);
  expect(encoder.records).toBe(records.length);
  const bytes = encoder.bytes;
  const payload = encoder.finish();
  expect(payload.length).toBe(bytes);
  expect(encoder.records).toBe(0);
  return rowCodec.createDecoder().decode(payload);
}

const one = (value: unknown) => roundTrip([value])[0];

test('special values come back as they were', () => {
  expect(Object.is(one(-0), -0)).toBe(true);
  expect(Object.is(one(0), 0)).toBe(true);
  const numbers = [
    Number.NaN,
    Infinity,
    -Infinity,
    127,
    128,
    -1,
    2 ** 31 - 1,
    -(2 ** 31),
    2 ** 31,
    2 ** 53,
    1e300,
    5e-324,
    0.1,
  ];
  for (const value of numbers) expect(one(value)).toBe(value);
  expect(roundTrip([null, undefined, { a: undefined, b: null }])).toStrictEqual([
    null,
    undefined,
    { a: undefined, b: null },
  ]);
  for (const value of [0n, -1n, 255n, 256n, 2n ** 64n, -(2n ** 200n)]) expect(one(value)).toBe(value);
  expect(one(new Date(12.0))).toEqual(new Date(12));
  expect((one(new Date(Number.NaN)) as Date).getTime()).toBeNaN();
  expect(one(new Date(-1))).toEqual(new Date(-1));
  expect(one(new Uint8Array([0, 255]))).toStrictEqual(new Uint8Array([0, 255]));
  expect(one(Buffer.from('hi'))).toStrictEqual(new Uint8Array([104, 105]));
  expect(
    one(
      new Map<unknown, unknown>([
        [{ k: 1 }, -0],
        [Number.NaN, new Set([undefined, [1]])],
      ]),
    ),
  ).toStrictEqual(
    new Map<unknown, unknown>([
      [{ k: 1 }, -0],
      [Number.NaN, new Set([undefined, [1]])],
    ]),
  );
});

test('strings of every kind and length come back as they were', () => {
  const odd = [
    '',
    'a',
    'é',
    'ÿ',
    '日本',
    '👍',
    '\ud800',
    'x\udc00y',
    '\u0000',
    '\ufeff',
    'a'.repeat(31),
    'a'.repeat(32),
  ];
  const long = ['a'.repeat(48), 'a'.repeat(49), 'a'.repeat(200_000), 'é'.repeat(70_000), `${'z'.repeat(100)}\ud800`];
  expect(roundTrip([...odd, ...long])).toStrictEqual([...odd, ...long]);
});

test('field names that mean something to JavaScript stay field names', () => {
  const record: unknown = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1, "10": 2, "é": 3}');
  const back = one(record) as Record<string, unknown>;
  expect(Object.keys(back)).toEqual(Object.keys(record as object));
  expect(Object.getPrototypeOf(back)).toBe(Object.prototype);
  expect(back).not.toHaveProperty('polluted');
});

test('class instances become their fields, rare built-ins stay what they are', () => {
  class Point {
    constructor(
      readonly x: number,
      readonly y: number,
    ) {}
  }
  expect(one(new Point(1, 2))).toStrictEqual({ x: 1, y: 2 });
  expect(one(Object.assign(Object.create(null) as object, { a: 1 }))).toStrictEqual({ a: 1 });
  expect(one(new Float64Array([1.5]))).toStrictEqual(new Float64Array([1.5]));
  expect(one(/a+/gi)).toStrictEqual(/a+/gi);
  expect((one(new RangeError('no')) as Error).message).toBe('no');
});

test(
  'any structured value comes back as it was, alone and among others',
  () => {
    const anything = fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withUnicodeString: true,
    } as fc.ObjectConstraints);
    fc.assert(
      fc.property(fc.array(fc.oneof(anything, fc.record({ word: fc.string(), count: fc.integer() }))), (records) => {
        expect(roundTrip(records)).toStrictEqual(records.map((record) => structuredClone(record)));
      }),
      { numRuns: RUNS },
    );
  },
  LONG_RUN_MS,
);

test('batches with more shapes than the dictionary holds come back', () => {
  const records = Array.from({ length: 200 }, (_, i) => ({ [`field${i % 60}`]: i, common: 'x' }));
  expect(roundTrip(records)).toStrictEqual(records);
});

test('a record that cannot be sent is refused and leaves the batch as it was', () => {
  const encoder = rowCodec.createEncoder();
  encoder.append({ a: 1 });
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  for (const bad of [{ b: { fn: () => 1 } }, Symbol('s'), { c: Promise.resolve() }, cyclic, new WeakMap()]) {
    let thrown: unknown;
    try {
      encoder.append(bad);
    } catch (error) {
      thrown = error;
    }
    expect(isMillraceError(thrown, 'INVALID_ARGUMENT')).toBe(true);
  }
  encoder.append({ b: 2 });
  expect(rowCodec.createDecoder().decode(encoder.finish())).toStrictEqual([{ a: 1 }, { b: 2 }]);
});

test('a record changed after it was appended is sent as it was', () => {
  const encoder = rowCodec.createEncoder();
  const record = { n: 1, list: [1] };
  encoder.append(record);
  record.n = 2;
  record.list.push(2);
  expect(rowCodec.createDecoder().decode(encoder.finish())).toStrictEqual([{ n: 1, list: [1] }]);
});

test('decoded byte arrays do not share memory with the payload', () => {
  const encoder = rowCodec.createEncoder();
  encoder.append(new Uint8Array([1, 2, 3]));
  const payload = encoder.finish();
  const [bytes] = rowCodec.createDecoder().decode(payload);
  payload.fill(9);
  expect(bytes).toStrictEqual(new Uint8Array([1, 2, 3]));
});

test(
  'damaged payloads are CORRUPT, never a crash or a hang',
  () => {
    const encoder = rowCodec.createEncoder();
    for (let i = 0; i < 20; i++)
      encoder.append({ word: `w${i}`, at: new Date(i), big: 10n ** 30n, m: new Map([[i, [i]]]) });
    const good = encoder.finish();
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 0, max: 255 }), fc.nat(good.length), (at, byte, cut) => {
        const bad = Uint8Array.from(good.subarray(0, cut));
        if (at < bad.length) bad[at] = byte;
        try {
          rowCodec.createDecoder().decode(bad);
        } catch (error) {
          expect(isMillraceError(error, 'CORRUPT')).toBe(true);
        }
      }),
      { numRuns: RUNS },
    );
  },
  LONG_RUN_MS,
);
