import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RecordCopies } from './record-copies.ts';
import { rowCodec } from './row-codec.ts';

const record = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true, withTypedArray: true }),
  fc.dictionary(
    fc.string(),
    fc.oneof(fc.string(), fc.double(), fc.boolean(), fc.constant(null), fc.constant(undefined)),
  ),
  fc.array(fc.oneof(fc.string(), fc.integer()), { maxLength: 80 }),
);

function throughCodec(value: unknown): unknown {
  const encoder = rowCodec.createEncoder();
  encoder.append(value);
  return rowCodec.createDecoder().decode(encoder.finish())[0];
}

test('a copy is what the codec would have made of the record', () => {
  fc.assert(
    fc.property(record, (value) => {
      const copies = new RecordCopies();
      let expected: unknown;
      try {
        expected = throughCodec(value);
      } catch (error) {
        expect(() => copies.append(value)).toThrow((error as Error).message);
        expect([copies.records, copies.bytes]).toEqual([0, 0]);
        return;
      }
      copies.append(value);
      expect(copies.bytes).toBeGreaterThan(0);
      expect(copies.finish()).toStrictEqual([expected]);
    }),
    { numRuns: 2_000 },
  );
});

test('a record changed after it was emitted arrives as it was', () => {
  const copies = new RecordCopies();
  const records: [{ n: number }, number[], { deep: { n: number } }, Date] = [
    { n: 1 },
    [1, 2],
    { deep: { n: 1 } },
    new Date(5),
  ];
  for (const value of records) copies.append(value);
  records[0].n = 2;
  records[1][0] = 7;
  records[2].deep.n = 2;
  records[3].setTime(6);
  expect(copies.finish()).toEqual([{ n: 1 }, [1, 2], { deep: { n: 1 } }, new Date(5)]);
  expect([copies.records, copies.bytes]).toEqual([0, 0]);
});

test('what cannot travel is refused, and long text counts', () => {
  const copies = new RecordCopies();
  expect(() => copies.append({ f: () => 1 })).toThrow();
  expect(() => copies.append(Symbol('s'))).toThrow();
  copies.append({ text: 'x'.repeat(10_000) });
  expect(copies.bytes).toBeGreaterThan(10_000);
});

test('an array with holes arrives without', () => {
  const copies = new RecordCopies();
  // biome-ignore lint/suspicious/noSparseArray: that is what is tested
  copies.append([1, , 3]);
  expect(copies.finish()).toStrictEqual([[1, undefined, 3]]);
});
