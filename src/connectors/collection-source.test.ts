import fc from 'fast-check';
import { expect, test } from 'vitest';
import { collectionSource } from './collection-source.ts';
import { readerContext } from './testing/run-reader.ts';

test('every item is emitted once, over any parallelism and any restart with another parallelism', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer(), { maxLength: 30 }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 0, max: 10 }),
      async (items, before, after, taken) => {
        const source = collectionSource(items);
        const out: number[] = [];
        const collector = { collect: (item: number) => void out.push(item) };
        const splits = source.enumerateSplits({ parallelism: before });
        const left = [];
        for (let i = 0; i < before; i++) {
          const reader = source.createReader(readerContext({ subtaskIndex: i, parallelism: before }));
          await reader.open((await splits).filter((_, n) => n % before === i));
          reader.poll(collector, taken);
          // Through JSON, as a checkpoint would keep it.
          left.push(...(JSON.parse(JSON.stringify(reader.snapshot())) as ReturnType<typeof reader.snapshot>));
        }
        for (let i = 0; i < after; i++) {
          const reader = source.createReader(readerContext({ subtaskIndex: i, parallelism: after }));
          await reader.open(left.filter((_, n) => n % after === i));
          while (reader.poll(collector, 3) !== 'end');
        }
        const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b);
        expect(sorted(out)).toEqual(sorted(items));
      },
    ),
  );
});

test('items keep their order in one subtask, and no poll emits more than asked', async () => {
  const source = collectionSource(['a', 'b', 'c']);
  const reader = source.createReader(readerContext());
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  const out: string[] = [];
  const collector = { collect: (item: string) => void out.push(item) };
  expect(reader.poll(collector, 2)).toBe('more');
  expect(out).toEqual(['a', 'b']);
  expect(reader.snapshot()).toEqual([{ from: 0, to: 3, next: 2 }]);
  expect(reader.poll(collector, 2)).toBe('end');
  expect(out).toEqual(['a', 'b', 'c']);
  expect(reader.snapshot()).toEqual([]);
});

test('a collection that is shorter than when the job was submitted is refused', async () => {
  const splits = await collectionSource([1, 2, 3]).enumerateSplits({ parallelism: 1 });
  const reader = collectionSource([1, 2]).createReader(readerContext());
  await expect(reader.open(splits)).rejects.toMatchObject({ code: 'PROGRAM' });
});

test('something that is not iterable is refused when the program is built', () => {
  expect(() => collectionSource(7 as unknown as Iterable<number>)).toThrow(/needs an array/);
});
