import { expect, test } from 'vitest';
import { keyGroupRange } from '../contracts/key-groups.ts';
import { SeededRandom } from '../kernel/random.ts';
import { keyGroupFor } from '../state/key-group-hash.ts';
import { createPartitioner, type PartitionSpec } from './partitioner.ts';

const spec: PartitionSpec = {
  partitioner: 'HASH',
  subpartitions: 3,
  subtaskIndex: 1,
  maxParallelism: 128,
  parallelism: 3,
  random: new SeededRandom(1),
  keySelector: (value) => value,
};

function choose(change: Partial<PartitionSpec>, records: readonly unknown[]): number[] {
  const select = createPartitioner({ ...spec, ...change });
  if (select === 'all') throw new Error('not for all');
  return records.map(select);
}

test('HASH sends each key to the subtask that owns its key group', () => {
  for (let i = 0; i < 500; i++) {
    const key = `key ${i}`;
    const [chosen] = choose({}, [key]);
    const range = keyGroupRange(128, 3, chosen ?? -1);
    const group = keyGroupFor(key, 128);
    expect(group).toBeGreaterThanOrEqual(range.first);
    expect(group).toBeLessThanOrEqual(range.last);
  }
});

test('REBALANCE and RESCALE take turns, each producer beginning elsewhere', () => {
  expect(choose({ partitioner: 'REBALANCE' }, [1, 1, 1, 1])).toEqual([1, 2, 0, 1]);
  expect(choose({ partitioner: 'RESCALE', subpartitions: 2, subtaskIndex: 4 }, [1, 1, 1])).toEqual([0, 1, 0]);
});

test('SHUFFLE chooses every consumer about as often, in no order', () => {
  const chosen = choose({ partitioner: 'SHUFFLE' }, Array(3_000).fill('same'));
  for (const consumer of [0, 1, 2]) {
    const share = chosen.filter((one) => one === consumer).length;
    expect(share).toBeGreaterThan(900);
    expect(share).toBeLessThan(1_100);
  }
  expect(chosen.slice(0, 30)).not.toEqual(choose({ partitioner: 'REBALANCE' }, Array(30).fill('same')));
});

test('REBALANCE and RESCALE are even to the record', () => {
  for (const partitioner of ['REBALANCE', 'RESCALE'] as const) {
    for (let subtaskIndex = 0; subtaskIndex < 5; subtaskIndex++) {
      const chosen = choose({ partitioner, subtaskIndex }, Array(300).fill('same'));
      expect([0, 1, 2].map((consumer) => chosen.filter((one) => one === consumer).length)).toEqual([100, 100, 100]);
    }
  }
});

test('FORWARD and GLOBAL have one target, BROADCAST all', () => {
  expect(choose({ partitioner: 'FORWARD', subpartitions: 1 }, [1, 2])).toEqual([0, 0]);
  expect(choose({ partitioner: 'GLOBAL' }, [1, 2])).toEqual([0, 0]);
  expect(createPartitioner({ ...spec, partitioner: 'BROADCAST' })).toBe('all');
});

test('a HASH edge without a key selector is a clear error', () => {
  expect(() => createPartitioner({ ...spec, keySelector: undefined })).toThrow('no key selector');
});
