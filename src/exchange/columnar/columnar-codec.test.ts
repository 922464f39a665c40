import { expect, test } from 'vitest';
import { isMillraceError } from '../../kernel/errors.ts';
import type { RecordEncoder } from '../record-codec.ts';
import { columnarCodec } from './columnar-codec.ts';

const codec = columnarCodec();
const interpreting = columnarCodec({ codeGeneration: 'never' });

/** An encoder that has learnt the shapes of these records. */
function taught(...lessons: readonly unknown[]): RecordEncoder {
  const encoder = codec.createEncoder();
  for (let i = 0; i < 16; i++) for (const lesson of lessons) encoder.append(lesson);
  encoder.finish();
  return encoder;
}

function send(encoder: RecordEncoder, records: readonly unknown[]): Uint8Array {
  for (const record of records) encoder.append(record);
  expect(encoder.records).toBe(records.length);
  const payload = encoder.finish();
  expect(encoder.records).toBe(0);
  return payload;
}

function decode(payload: Uint8Array): readonly unknown[] {
  const generated = codec.createDecoder().decode(payload);
  expect(interpreting.createDecoder().decode(payload)).toStrictEqual(generated);
  return generated;
}

const roundTrip = (encoder: RecordEncoder, records: readonly unknown[]) => decode(send(encoder, records));

test('records of one shape come back as they were, in far fewer bytes than rows', () => {
  const records = Array.from({ length: 1_000 }, (_, i) => ({ word: `word${i % 7}`, count: i % 100 }));
  const encoder = taught(records[0]);
  const payload = send(encoder, records);
  expect(decode(payload)).toStrictEqual(records);
  expect(payload.length).toBeLessThan(1_000 * 8);
});

test('every special value keeps its place in a column', () => {
  const numbers = [0, -0, Number.NaN, Infinity, -Infinity, 127, -128, 2 ** 31 - 1, -(2 ** 31), 2 ** 53, 0.1, 5e-324];
  for (const value of numbers) {
    const back = roundTrip(taught({ a: 1, b: 'x' }), [
      { a: 1, b: 'x' },
      { a: value, b: 'y' },
    ]) as { a: number }[];
    expect(Object.is(back[1]?.a, value)).toBe(true);
  }
  const values = [undefined, null, true, false, 1, 'text', 12n, 2n ** 70n, new Date(5), new Date(Number.NaN)];
  const records = values.map((a, i) => ({ a, i }));
  expect(roundTrip(taught({ a: 1, i: 1 }), records)).toStrictEqual(records);
  expect(roundTrip(taught(...records), records)).toStrictEqual(records);
  const objects = [new Uint8Array([1, 2]), new Map([[1, { a: 1 }]]), new Set(['a']), { x: { y: { z: [1, 'a'] } } }, []];
  const nested = [...objects, ...values].map((a, i) => ({ i, a }));
  expect(roundTrip(taught({ i: 1, a: new Map() }), nested)).toStrictEqual(nested);
  expect(roundTrip(taught({ i: 1, a: { x: 1 } }), nested)).toStrictEqual(nested);
});

test('strings of every kind and length come back from a column', () => {
  const odd = ['', 'a', 'é', 'ÿ', '日本', '👍', '\ud800', 'x\udc00y', '\u0000', '\ufeff'];
  const long = ['a'.repeat(300), 'é'.repeat(65_536), '\ud800'.repeat(65_537), '日'.repeat(200_000)];
  for (const texts of [odd, long, [...odd, ...long], odd.slice(0, 4)]) {
    const records = texts.map((text) => ({ text }));
    expect(roundTrip(taught({ text: 'a' }), records)).toStrictEqual(records);
    expect(roundTrip(taught('a'), texts)).toStrictEqual(texts);
  }
});

test('the order of fields, and a missing field against an undefined one, are kept', () => {
  const records = [{ a: 1, b: 2 }, { b: 2, a: 1 }, { a: 1 }, { a: 1, b: undefined }, {}, { a: 1, b: 2, c: 3 }];
  const back = roundTrip(taught(...records), records);
  expect(back).toStrictEqual(records);
  expect(back.map((record) => Object.keys(record as object))).toEqual(records.map((record) => Object.keys(record)));
});

test('pairs, plain strings and plain numbers have columns too', () => {
  const encoder = taught(['a', 1], 'text', 5);
  const records = [['b', 2], 'more', 1.5, null, ['c', 3], undefined, 7, ['d', null], [[], 'x'], ['a', 1, 2]];
  expect(roundTrip(encoder, records)).toStrictEqual(records);
  // biome-ignore lint/suspicious/noSparseArray: holes are the point.
  expect(roundTrip(encoder, [[, 1], new Array(2)])).toStrictEqual([
    [undefined, 1],
    [undefined, undefined],
  ]);
});

test('shapes may change in mid-stream, and change again', () => {
  const encoder = codec.createEncoder();
  const shapes = [
    (i: number) => ({ id: i, name: `n${i}` }),
    (i: number) => ({ id: i, name: `n${i}`, at: new Date(i) }),
    (i: number) => ({ id: BigInt(i), name: i % 3 === 0 ? null : `n${i}` }),
    (i: number) => [i, { user: { id: i, tags: ['a', `${i}`] } }],
    (i: number) => `plain ${i}`,
  ];
  for (let round = 0; round < 60; round++) {
    const shape = shapes[round % shapes.length] as (i: number) => unknown;
    const next = shapes[(round + 1) % shapes.length] as (i: number) => unknown;
    const records = Array.from({ length: 50 }, (_, i) => (i < 40 ? shape(i) : next(i)));
    expect(roundTrip(encoder, records)).toStrictEqual(records);
  }
});

test('more shapes than there are columns for come back', () => {
  const encoder = codec.createEncoder();
  for (let round = 0; round < 5; round++) {
    const records = Array.from({ length: 600 }, (_, i) => ({ [`field${i % 40}`]: i, common: round }));
    expect(roundTrip(encoder, records)).toStrictEqual(records);
  }
});

test('a shape whose optional parts are too many together goes by rows', () => {
  const part = { a: 1, b: 2, c: 3, d: 4 };
  const records = Array.from({ length: 40 }, (_, i) =>
    Object.fromEntries(Array.from({ length: 16 }, (_, field) => [`f${field}`, field % 2 === i % 2 ? part : null])),
  );
  const encoder = taught(...records.slice(0, 2));
  expect(roundTrip(encoder, records)).toStrictEqual(records);
  expect(roundTrip(encoder, records)).toStrictEqual(records);
});

test('columns that went wide for a while become narrow again', () => {
  const encoder = taught({ a: 1 });
  const plain = Array.from({ length: 64 }, (_, i) => ({ a: i }));
  const narrow = send(encoder, plain).length;
  send(encoder, [...plain, { a: null }]);
  expect(send(encoder, plain).length).toBeGreaterThan(narrow);
  for (let i = 0; i < 40; i++) send(encoder, plain);
  expect(send(encoder, plain).length).toBe(narrow);
});

test('class instances become their fields, and what only looks plain is told apart', () => {
  class Point {
    constructor(
      readonly x: number,
      readonly y: number,
    ) {}
    get length() {
      return Math.hypot(this.x, this.y);
    }
  }
  class Extended extends Map<number, number> {
    x = 1;
    y = 2;
  }
  const bare = Object.assign(Object.create(null) as object, { x: 1, y: 2 });
  const inherited: unknown = Object.create({ x: 1, y: 2 });
  const encoder = taught(new Point(1, 2), bare);
  expect(roundTrip(encoder, [new Point(3, 4), bare, { x: 5, y: 6 }, new Extended([[1, 2]]), inherited])).toStrictEqual([
    { x: 3, y: 4 },
    { x: 1, y: 2 },
    { x: 5, y: 6 },
    new Map([[1, 2]]),
    {},
  ]);
});

test('field names that mean something to JavaScript stay field names', () => {
  const texts = [
    '{"__proto__": {"polluted": true}, "a": 1}',
    '{"constructor": 1, "toString": 2, "é\\"\\n$": 3, "\\ud800": 4}',
    '{"10": 1, "2": 2, "a": 3}',
    '{"hasOwnProperty": "x", "valueOf": null, "": 0}',
  ];
  const records: unknown[] = texts.map((text): unknown => JSON.parse(text));
  const back = roundTrip(taught(...records), [...records, ...records]);
  expect(JSON.stringify(back)).toBe(JSON.stringify([...records, ...records]));
  expect(Object.getPrototypeOf(back[0])).toBe(Object.prototype);
});

test('a record that cannot be sent is refused and leaves the batch as it was', () => {
  const encoder = taught({ a: 1, b: 'x' });
  encoder.append({ a: 1, b: 'x' });
  const cyclic: Record<string, unknown> = { a: 1 };
  cyclic.b = cyclic;
  const throwing = {
    a: 1,
    get b(): string {
      throw new RangeError('no');
    },
  };
  for (const bad of [{ a: () => 1, b: 'x' }, { a: 1, b: Symbol('s') }, { a: new Map([[1, () => 1]]), b: 2 }, cyclic]) {
    let thrown: unknown;
    try {
      encoder.append(bad);
    } catch (error) {
      thrown = error;
    }
    expect(isMillraceError(thrown, 'INVALID_ARGUMENT')).toBe(true);
  }
  expect(() => encoder.append(throwing)).toThrow('no');
  expect(encoder.records).toBe(1);
  encoder.append({ a: null, b: 'y' });
  expect(decode(encoder.finish())).toStrictEqual([
    { a: 1, b: 'x' },
    { a: null, b: 'y' },
  ]);
});

test('a record changed after it was appended is sent as it was', () => {
  const encoder = taught({ n: 1, list: [1], inner: { m: 1 }, at: new Date(1) });
  const record = { n: 1, list: [1], inner: { m: 1 }, at: new Date(1) };
  encoder.append(record);
  record.n = 2;
  record.list.push(2);
  record.inner.m = 2;
  record.at.setTime(2);
  expect(decode(encoder.finish())).toStrictEqual([{ n: 1, list: [1], inner: { m: 1 }, at: new Date(1) }]);
});

test('decoding does not depend on where the payload lies, and takes nothing from it', () => {
  const records = Array.from({ length: 30 }, (_, i) => ({ i, half: i / 2, big: BigInt(i), text: `t${i}` }));
  const payload = send(taught(records[0]), records);
  for (let shift = 0; shift < 9; shift++) {
    const moved = new Uint8Array(payload.length + 16).subarray(shift, shift + payload.length);
    moved.set(payload);
    const back = codec.createDecoder().decode(moved);
    moved.fill(0xff);
    expect(back).toStrictEqual(records);
  }
});

test('an empty batch is a batch', () => {
  expect(decode(codec.createEncoder().finish())).toStrictEqual([]);
  expect(decode(taught({ a: 1 }).finish())).toStrictEqual([]);
});

test('the size while gathering is close to what is sent', () => {
  const encoder = taught({ word: 'x', count: 1 });
  for (let i = 0; i < 1_000; i++) encoder.append({ word: `word${i}`, count: i });
  const { bytes } = encoder;
  const payload = encoder.finish();
  expect(bytes).toBeGreaterThan(payload.length * 0.7);
  expect(bytes).toBeLessThan(payload.length * 1.5);
});

test('without generated code records go by rows, and columns of others are understood', () => {
  const records = Array.from({ length: 100 }, (_, i) => ({ i, text: `t${i}` }));
  const payload = send(interpreting.createEncoder(), records);
  expect(codec.createDecoder().decode(payload)).toStrictEqual(records);
  expect(decode(send(taught(records[0]), records))).toStrictEqual(records);
});
