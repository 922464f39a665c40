import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

type Count = { readonly key: number; readonly n: number };

const clusters: SlotCluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

const KEYS = 5;
const END = 100;
const EXACT = (2 * END) / KEYS;

/** Two sources, a count for each key behind them. */
const counting =
  (mode: 'EXACTLY_ONCE' | 'AT_LEAST_ONCE', sink: GatedSink<Count>, valve: Valve) =>
  (env: StreamExecutionEnvironment) => {
    env.setBufferTimeout(1);
    env.enableCheckpointing(600_000, mode);
    env
      .fromSource(rangeSource([END, END], valve, { endless: true }))
      .setParallelism(2)
      .map(({ n }): Count => ({ key: n % KEYS, n: 1 }))
      .setParallelism(2)
      .keyBy(({ key }) => key)
      .reduce((a, b) => ({ key: a.key, n: a.n + b.n }))
      .setParallelism(1)
      .slotSharingGroup('far')
      .sinkTo(sink.sink())
      .setParallelism(1)
      .slotSharingGroup('far');
  };

/** One source's barrier comes long before the other's, with records of both in between; then all is restored. */
async function countsAfterRestore(mode: 'EXACTLY_ONCE' | 'AT_LEAST_ONCE') {
  const slots = new SlotCluster();
  clusters.push(slots);
  await slots.addSlots(3);
  const sink = new GatedSink<Count>();
  const valve = new Valve(50);
  const program = await slots.program(counting(mode, sink, valve));
  await slots.deploy(program);
  await slots.running();
  await until('the first half', () => sink.written.length === 100);
  slots.trigger(1, {}, [0]);
  await until('the first source to acknowledge', () => slots.acks.some(({ checkpointId }) => checkpointId === 1));
  valve.open(80);
  const seen = mode === 'AT_LEAST_ONCE' ? 160 : 130;
  await until(`${seen} records to pass, as the mode allows`, () => sink.written.length === seen);
  const metadata = await slots.checkpoint(program, 1, {}, [1]);
  await slots.close();

  const again = new SlotCluster(slots.objects);
  clusters.push(again);
  await again.addSlots(3);
  const rest = new GatedSink<Count>();
  const second = await again.program(counting(mode, rest, new Valve(END)));
  again.slotDeployments(second);
  await again.deploy(second, metadata);
  await again.running();
  // The first source goes on at 50, the second at 80: both as of their own barriers.
  await until('the rest', () => rest.written.length === 70);
  const last = new Map<number, number>();
  for (const { key, n } of rest.written) last.set(key, Math.max(n, last.get(key) ?? 0));
  return [...last.values()];
}

test('at least once: barriers block nothing; what came between two of them may count twice, and nothing is lost', async () => {
  const counts = await countsAfterRestore('AT_LEAST_ONCE');
  expect(counts).toHaveLength(KEYS);
  // 30 records of the first source were in the snapshot and came again.
  expect(counts).toEqual(Array(KEYS).fill(EXACT + 30 / KEYS));
});

test('exactly once, with the same timing: the source that is ahead waits, and nothing counts twice', async () => {
  expect(await countsAfterRestore('EXACTLY_ONCE')).toEqual(Array(KEYS).fill(EXACT));
});
