import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ManualClock } from '../kernel/manual-clock.ts';
import { dataGen, type DataGenSplit } from './datagen-source.ts';
import { readerContext, readUpTo } from './testing/run-reader.ts';

const record = (index: number, random: { next(): number; int(bound: number): number }) => ({
  index,
  a: random.next(),
  b: random.int(1_000),
});

test('the same seed gives the same records whatever the parallelism and wherever it was stopped and resumed', async () => {
  const whole = dataGen({ seed: 7, count: 60, generator: record });
  const reference = whole.createReader(readerContext());
  await reference.open(await whole.enumerateSplits({ parallelism: 1 }));
  const expected = await readUpTo(reference);
  expect(expected.map(({ index }) => index)).toEqual([...Array(60).keys()]);
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.nat(15)), { maxLength: 4 }),
      async (first, stops) => {
        const source = dataGen({ seed: 7, count: 60, generator: record });
        let splits = await source.enumerateSplits({ parallelism: first });
        const records: unknown[] = [];
        for (const [parallelism, taken] of [...stops, [2, Number.POSITIVE_INFINITY] as const]) {
          const left: DataGenSplit[] = [];
          for (let i = 0; i < parallelism; i++) {
            const reader = source.createReader(readerContext({ subtaskIndex: i, parallelism }));
            await reader.open(splits.filter((_, n) => n % parallelism === i));
            records.push(...(await readUpTo(reader, taken, 4)));
            left.push(...(JSON.parse(JSON.stringify(reader.snapshot())) as DataGenSplit[]));
          }
          splits = left;
        }
        const sorted = [...(records as typeof expected)].sort((a, b) => a.index - b.index);
        expect(sorted).toEqual(expected);
      },
    ),
  );
});

test('records of different indexes and seeds have different randomness', () => {
  const source = (seed: number) => dataGen({ seed, count: 2_000, generator: (_, random) => random.next() });
  const draw = async (seed: number) => {
    const reader = source(seed).createReader(readerContext());
    await reader.open(await source(seed).enumerateSplits({ parallelism: 1 }));
    return readUpTo(reader);
  };
  return Promise.all([draw(1), draw(2)]).then(([one, two]) => {
    expect(new Set(one).size).toBe(2_000);
    expect(one.filter((value, i) => value === two[i])).toEqual([]);
  });
});

test('a stream without end is unbounded and survives being kept as JSON', async () => {
  const source = dataGen({ generator: (index) => index });
  expect(source.boundedness).toBe('CONTINUOUS_UNBOUNDED');
  const reader = source.createReader(readerContext());
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  expect(await readUpTo(reader, 3)).toEqual([0, 1, 2]);
  expect(JSON.parse(JSON.stringify(reader.snapshot()))).toEqual([{ next: 3, stride: 1, end: null }]);
});

test('a rate is kept, idle time is not made up for in a flood, and closing leaves no timer', async () => {
  const clock = new ManualClock();
  const source = dataGen({ ratePerSecond: 1_000, generator: (index) => index, clock });
  const reader = source.createReader(readerContext());
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  let emitted = 0;
  const poll = () => reader.poll({ collect: () => void emitted++ }, 10_000);
  expect(poll()).toBe('wait');
  for (let i = 0; i < 50; i++) {
    const available = reader.available();
    await clock.advance(20);
    await available;
    poll();
  }
  expect(emitted).toBeGreaterThanOrEqual(990);
  expect(emitted).toBeLessThanOrEqual(1_001);
  emitted = 0;
  await clock.advance(60_000);
  poll();
  expect(emitted).toBeLessThanOrEqual(101);
  const waiting = reader.available();
  await reader.close();
  await waiting;
  expect(clock.pending).toBe(0);
});

test('wrong options are refused when the program is built', () => {
  const generator = (index: number) => index;
  expect(() => dataGen({ generator, count: -1 })).toThrow(/count of dataGen is -1/);
  expect(() => dataGen({ generator, seed: 0.5 })).toThrow(/seed of dataGen is 0.5/);
  expect(() => dataGen({ generator, ratePerSecond: 0 })).toThrow(/ratePerSecond is 0/);
  expect(() => dataGen({ generator: 5 as never })).toThrow(/needs a generator/);
});
