import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isMillraceError } from '../../kernel/errors.ts';
import { columnarCodec } from './columnar-codec.ts';

/** Cases per property; 300,000 in `npm run properties`. */
const RUNS = Number(process.env.MILLRACE_PROPERTY_RUNS ?? 60);
const LONG_RUN_MS = 6 * 3_600_000;

const codec = columnarCodec();
const decoder = codec.createDecoder();
const interpreter = columnarCodec({ codeGeneration: 'never' }).createDecoder();

const text = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.string({ unit: 'binary', maxLength: 10 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 8 }).map((codes) => String.fromCharCode(...codes)),
  fc.constantFrom(
    '',
    '\u0000',
    '\ud800',
    '\udfff\ud800',
    'ÿ',
    'Ā',
    '👍',
    '__proto__',
    'x'.repeat(300),
    'é'.repeat(8_193),
  ),
);
const number = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.constantFrom(
    0,
    -0,
    1,
    -1,
    127,
    128,
    -128,
    -129,
    32_767,
    32_768,
    2 ** 31 - 1,
    2 ** 31,
    -(2 ** 31),
    2 ** 53,
    Number.NaN,
  ),
);
const bigint = fc.oneof(
  fc.bigInt(),
  fc.constantFrom(0n, -1n, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), -(2n ** 63n) - 1n),
);
const scalar = fc.oneof(
  text,
  number,
  bigint,
  fc.boolean(),
  fc.constantFrom(null, undefined),
  fc.date({ noInvalidDate: false }),
);
const irregular = fc.oneof(
  fc.uint8Array({ maxLength: 10 }),
  fc.array(scalar, { maxLength: 4 }).map((items) => new Set(items)),
  fc.array(fc.tuple(scalar, scalar), { maxLength: 3 }).map((entries) => new Map(entries)),
  fc.float32Array({ maxLength: 3 }),
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true, withTypedArray: true, maxDepth: 3 }),
);

/** A way to make values: a few of them, mixed, are a field of a stream that changes. */
const valueKinds: readonly fc.Arbitrary<unknown>[] = [
  text,
  number,
  bigint,
  fc.boolean(),
  fc.constant(null),
  fc.constant(undefined),
  fc.date({ noInvalidDate: false }),
  irregular,
  fc.record({ id: number, name: text }),
  fc.record({ name: fc.option(text), inner: fc.record({ a: scalar, b: fc.tuple(number, text) }) }),
  fc.tuple(text, number),
  fc.array(scalar, { maxLength: 3 }),
];

const fieldNames = ['id', 'word', 'at', 'x y', '"', '\ud800', 'constructor', '7', '__proto__'] as const;

interface Shape {
  readonly record: fc.Arbitrary<unknown>;
}

const mixed = fc
  .subarray([...valueKinds], { minLength: 1, maxLength: 3 })
  .map((kinds): fc.Arbitrary<unknown> => fc.oneof(...kinds));

const shape: fc.Arbitrary<Shape> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.shuffledSubarray([...fieldNames], { maxLength: 4 }), fc.array(mixed, { minLength: 4, maxLength: 4 }))
      .map(([names, values]) => ({
        record: fc.tuple(...values).map((own) => {
          const record: Record<string, unknown> = {};
          for (const [i, name] of names.entries()) {
            Object.defineProperty(record, name, {
              value: own[i],
              enumerable: true,
              configurable: true,
              writable: true,
            });
          }
          return record;
        }),
      })),
  },
  {
    weight: 1,
    arbitrary: fc.array(mixed, { minLength: 1, maxLength: 3 }).map((values) => ({ record: fc.tuple(...values) })),
  },
  { weight: 1, arbitrary: mixed.map((record) => ({ record })) },
);

/** Batches of a stream with one to three shapes, short and long runs of each. */
const stream: fc.Arbitrary<readonly (readonly unknown[])[]> = fc
  .array(shape, { minLength: 1, maxLength: 3 })
  .chain((shapes) => {
    const run = fc.oneof(...shapes.map(({ record }) => fc.array(record, { maxLength: 24, size: 'max' })));
    return fc.array(
      fc.array(run, { maxLength: 3 }).map((runs) => runs.flat()),
      { minLength: 1, maxLength: 5 },
    );
  });

test(
  'any stream comes back as structured clones of its records, whatever shapes it has and changes to',
  () => {
    fc.assert(
      fc.property(stream, (batches) => {
        const encoder = codec.createEncoder();
        for (const records of batches) {
          for (const record of records) encoder.append(record);
          expect(encoder.records).toBe(records.length);
          const payload = encoder.finish();
          const expected = records.map(clone);
          const decoded = decoder.decode(payload);
          expectSame(decoded, expected);
          expectSame(decoded.map(fieldOrder), expected.map(fieldOrder));
          expectSame(interpreter.decode(payload), expected);
        }
      }),
      { numRuns: RUNS },
    );
  },
  LONG_RUN_MS,
);

test('invalid dates next to a field named constructor come back', () => {
  const records = [
    { id: new Date(Number.NaN), constructor: false },
    { id: new Date(0), constructor: new Date(0) },
  ];
  const encoder = codec.createEncoder();
  for (const record of records) encoder.append(record);
  expectSame(decoder.decode(encoder.finish()), records);
  expect(() => expectSame([{ id: new Date(0) }], [{ id: new Date(1) }])).toThrow();
});

test(
  'damaged batches are CORRUPT or decode to something, never a crash or a hang',
  () => {
    const damage = fc.record({
      at: fc.nat(),
      byte: fc.nat(255),
      cut: fc.oneof(fc.constant(0), fc.nat()),
      next: fc.nat(255),
    });
    fc.assert(
      fc.property(stream, damage, (batches, { at, byte, cut, next }) => {
        const encoder = codec.createEncoder();
        for (const records of batches) {
          for (const record of records) encoder.append(record);
          const good = encoder.finish();
          const bad = Uint8Array.from(good.subarray(0, good.length - (cut % good.length)));
          bad[at % bad.length] = byte;
          bad[(at + next) % bad.length] = next;
          for (const each of [decoder, interpreter]) {
            try {
              each.decode(bad);
            } catch (error) {
              if (!isMillraceError(error, 'CORRUPT')) throw error;
            }
          }
        }
      }),
      { numRuns: RUNS },
    );
  },
  LONG_RUN_MS,
);

/**
 * vitest's own comparison takes a field named `constructor` for the class; Node's takes two invalid dates for
 * different ones. A record with both would differ from itself.
 */
function expectSame(actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(comparable(actual), comparable(expected))) expect(actual).toStrictEqual(expected);
}

/** Dates as what they hold: not a number is equal to itself there. */
function comparable(value: unknown): unknown {
  if (value instanceof Date) return ['a date', value.getTime()];
  if (Array.isArray(value)) return value.map(comparable);
  if (value instanceof Map) return new Map([...value].map(([key, entry]) => [comparable(key), comparable(entry)]));
  if (value instanceof Set) return new Set([...value].map(comparable));
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  const copy: object = {};
  for (const name of Object.keys(value)) {
    const own = comparable((value as Record<string, unknown>)[name]);
    Object.defineProperty(copy, name, { value: own, enumerable: true, configurable: true, writable: true });
  }
  return copy;
}

/** `structuredClone` keeps holes, which no codec promises. */
function clone(record: unknown): unknown {
  return normalise(structuredClone(record));
}

function normalise(value: unknown): unknown {
  if (Array.isArray(value)) return Array.from(value as readonly unknown[], normalise);
  if (value instanceof Map) return new Map([...value].map(([key, entry]) => [normalise(key), normalise(entry)]));
  if (value instanceof Set) return new Set([...value].map(normalise));
  if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    for (const name of Object.keys(value)) {
      const own = normalise((value as Record<string, unknown>)[name]);
      Object.defineProperty(value, name, { value: own, enumerable: true, configurable: true, writable: true });
    }
  }
  return value;
}

function fieldOrder(record: unknown): unknown {
  if (Array.isArray(record)) return record.map(fieldOrder);
  if (typeof record !== 'object' || record === null) return undefined;
  return Object.entries(record).map(([name, value]) => [name, fieldOrder(value)]);
}
