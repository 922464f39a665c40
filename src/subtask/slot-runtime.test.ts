import { afterEach, expect, test } from 'vitest';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import { until } from '../../test-support/until.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import { SeededRandom } from '../kernel/random.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';
import { TransactionalStore } from './testing/transactional-store.ts';

const clusters: SlotCluster[] = [];

async function cluster(slots: number, predecessor?: SlotCluster): Promise<SlotCluster> {
  const made = new SlotCluster(predecessor?.objects);
  clusters.push(made);
  await made.addSlots(slots);
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

interface Sum {
  readonly key: string;
  readonly n: number;
  readonly sum: number;
}

const SPLITS = [4_000, 3_000, 5_000];
const KEYS = 37;

/** Sums per key; every record of the source shows in the sums' last value and in their number. */
function sums(
  env: StreamExecutionEnvironment,
  store: TransactionalStore<Sum>,
  options: { valve?: Valve; parallelism: number },
) {
  env
    .fromSource(rangeSource(SPLITS, options.valve))
    .uid('source')
    .setParallelism(2)
    .map(({ split, n }: RangeRecord): Sum => ({ key: `${split}-${n % KEYS}`, n: 1, sum: n }))
    .setParallelism(2)
    .keyBy(({ key }) => key)
    .reduce((a, b) => ({ key: a.key, n: a.n + b.n, sum: a.sum + b.sum }))
    .uid('sums')
    .setParallelism(options.parallelism)
    .sinkTo(store.sink())
    .uid('sink')
    .setParallelism(options.parallelism);
}

/** For each key the sums after 1, 2, 3, … records, each exactly once: neither lost, nor doubled, nor out of order. */
function expectExactSums(committed: readonly Sum[]): void {
  const expected = new Map<string, Sum[]>();
  SPLITS.forEach((end, i) => {
    for (let n = 0; n < end; n++) {
      const key = `s${i}-${n % KEYS}`;
      const list = expected.get(key) ?? [];
      const last = list.at(-1);
      list.push({ key, n: list.length + 1, sum: (last?.sum ?? 0) + n });
      expected.set(key, list);
    }
  });
  const actual = new Map<string, Sum[]>();
  for (const sum of committed) actual.set(sum.key, [...(actual.get(sum.key) ?? []), sum]);
  expect(actual.size).toBe(expected.size);
  for (const [key, list] of expected) expect(actual.get(key), key).toEqual(list);
}

test('a job without checkpoints runs over two slots and TCP to the end and commits everything', async () => {
  const slots = await cluster(2);
  const store = new TransactionalStore<Sum>();
  const program = await slots.program((env) => sums(env, store, { parallelism: 2 }));
  await slots.deploy(program);
  const reports = await slots.ended();
  expect(reports.map(({ state, error }) => [state, error])).toEqual(reports.map(() => ['FINISHED', undefined]));
  expectExactSums(store.committed);
  const records = SPLITS.reduce((a, b) => a + b);
  const total = (pick: (io: (typeof reports)[number]['io']) => number) =>
    reports.reduce((sum, { io }) => sum + pick(io), 0);
  expect(total((io) => io.readRecords)).toBe(records);
  expect(total((io) => io.writeRecords)).toBe(records);
  expect(total((io) => io.readBytes)).toBe(total((io) => io.writeBytes));
  const states = slots.history.filter(({ attemptId }) => attemptId === reports[0]?.attemptId).map(({ state }) => state);
  expect([...new Set(states)]).toEqual(['DEPLOYING', 'INITIALIZING', 'RUNNING', 'FINISHED']);
});

test.each([2, 3, 1])('killed in the middle and restored with %i reducers, the output is exact', async (parallelism) => {
  const store = new TransactionalStore<Sum>();
  const first = await cluster(2);
  const valve = new Valve(1_000);
  const program = await first.program((env) => {
    env.enableCheckpointing(1_000);
    sums(env, store, { valve, parallelism: 2 });
  });
  await first.deploy(program);
  await first.running();
  await first.checkpoint(program, 1);
  first.complete(1);
  valve.open(2_500);
  // Taken while records flow: whatever it cuts, it must be a consistent cut.
  const metadata = await first.checkpoint(program, 2);
  first.complete(2);
  valve.open(2_900);
  await until('progress beyond the checkpoint', () => valve.waiters > 0);
  await first.close();
  const beforeRestore = store.committed.length;

  const second = await cluster(Math.max(2, parallelism), first);
  const again = await second.program((env) => {
    env.enableCheckpointing(1_000);
    sums(env, store, { parallelism });
  });
  // The restored deployment must be a later one, as a master would make it.
  second.slotDeployments(again);
  second.slotDeployments(again);
  await second.deploy(again, metadata);
  await second.endOfData();
  expect(second.reports().every(({ state }) => state === 'RUNNING')).toBe(true);
  await second.checkpoint(again, 3);
  second.complete(3);
  const reports = await second.ended();
  expect(reports.map(({ state }) => state)).toEqual(reports.map(() => 'FINISHED'));
  expect(store.committed.length).toBeGreaterThan(beforeRestore);
  expectExactSums(store.committed);
});

test.each([1, 2, 3, 4, 5, 6])(
  'seed %i: killed again and again at any moment, notices lost, rescaled: the output is exact',
  async (seed) => {
    const random = new SeededRandom(seed);
    const store = new TransactionalStore<Sum>();
    const slots = await cluster(0);
    let newest: CheckpointMetadata | undefined;
    let checkpointId = 0;
    const generations = 3 + random.int(3);
    for (let generation = 1; generation <= generations; generation++) {
      const isLast = generation === generations;
      const parallelism = 1 + random.int(3);
      const valve = new Valve(random.int(2_000));
      await slots.addSlots(Math.max(2, parallelism));
      const program = await slots.program((env) => {
        env.enableCheckpointing(60_000);
        env.setBufferTimeout(1);
        sums(env, store, { valve, parallelism });
      });
      await slots.deploy(program, newest);
      await slots.running();
      for (let step = random.int(4); step > 0; step--) {
        valve.open(valve.limit + random.int(1_500));
        if (random.next() < 0.3) continue;
        const taken = await slots.checkpoint(program, ++checkpointId);
        if (random.next() < 0.3) {
          slots.abort(checkpointId);
          continue;
        }
        newest = taken;
        if (random.next() < 0.6) slots.complete(checkpointId);
      }
      if (isLast) {
        valve.open();
        await slots.endOfData();
        await slots.checkpoint(program, ++checkpointId);
        slots.complete(checkpointId);
        const reports = await slots.ended();
        expect(reports.map(({ state }) => state)).toEqual(reports.map(() => 'FINISHED'));
      } else {
        if (random.next() < 0.5) slots.trigger(++checkpointId);
        await slots.close();
      }
    }
    expectExactSums(store.committed);
  },
);
