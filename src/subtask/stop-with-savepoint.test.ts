import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import { KeyedProcessFunction, type KeyedContext, type OnTimerContext } from '../api/process-function.ts';
import type { Collector } from '../api/functions.ts';
import { WatermarkStrategy } from '../api/watermark-strategy.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';
import { TransactionalStore } from './testing/transactional-store.ts';

const clusters: SlotCluster[] = [];
const SAVEPOINT = { kind: 'SAVEPOINT', location: 'c/savepoints/s/' } as const;

async function cluster(slots: number, predecessor?: SlotCluster): Promise<SlotCluster> {
  const made = new SlotCluster(predecessor?.objects);
  clusters.push(made);
  await made.addSlots(slots);
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

/** Counts the numbers of each key; tells the count when event time comes to its end. */
class CountAtTheEnd extends KeyedProcessFunction<number, RangeRecord, string> {
  processElement(_value: RangeRecord, ctx: KeyedContext<number>): void {
    const count = ctx.getState<number>({ name: 'count', defaultValue: 0 });
    count.update((count.value() as number) + 1);
    ctx.timerService().registerEventTimeTimer(10_000_000);
  }

  override onTimer(_timeMs: number, ctx: OnTimerContext<number>, out: Collector<string>): void {
    const count = ctx.getState<number>({ name: 'count', defaultValue: 0 });
    out.collect(`${ctx.getCurrentKey()}: ${count.value()}`);
  }
}

const byN = WatermarkStrategy.forMonotonousTimestamps<RangeRecord>().withTimestampAssigner(({ n }) => n);

/** An endless source, a count per key in another slot, a two-phase commit sink. */
function counts(env: StreamExecutionEnvironment, store: TransactionalStore<string>, valve: Valve): void {
  env.setBufferTimeout(1);
  env.setAutoWatermarkInterval(2);
  env
    .fromSource(rangeSource([Number.MAX_SAFE_INTEGER], valve, { endless: true }), byN, 'numbers')
    .setParallelism(1)
    .keyBy(({ n }) => n % 3)
    .process(new CountAtTheEnd())
    .setParallelism(2)
    .slotSharingGroup('far')
    .sinkTo(store.sink())
    .setParallelism(2)
    .slotSharingGroup('far');
}

async function flowed(slots: SlotCluster, records: number): Promise<void> {
  await until(
    `${records} records`,
    () => {
      const read = slots.reports().reduce((sum, { io }) => sum + io.readRecords, 0);
      return read === records;
    },
    { everyMs: 2 },
  );
}

const states = (slots: SlotCluster) => slots.reports().map(({ state }) => state);

/** The counts, of which 30 records were read. */
async function started(intervalMs: number | undefined) {
  const slots = await cluster(3);
  const [store, valve] = [new TransactionalStore<string>(), new Valve(30)];
  const main = (env: StreamExecutionEnvironment) => {
    if (intervalMs !== undefined) env.enableCheckpointing(intervalMs);
    counts(env, store, valve);
  };
  const program = await slots.program(main);
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 30);
  return { slots, store, valve, program, main };
}

for (const intervalMs of [60_000, undefined]) {
  const periodic = intervalMs === undefined ? 'no periodic checkpoints' : 'periodic checkpoints';
  const start = () => started(intervalMs);

  test(`a drained job fires its timers into the savepoint and commits them with it (${periodic})`, async () => {
    const { slots, store, program } = await start();
    await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'DRAIN' });
    expect(store.committed).toEqual([]);
    expect(states(slots)).not.toContain('FINISHED');
    slots.complete(1);
    expect((await slots.ended()).map(({ state }) => state)).toEqual(Array(3).fill('FINISHED'));
    expect([...store.committed].sort()).toEqual(['0: 10', '1: 10', '2: 10']);
  });

  test(`a suspended job fires nothing, ends with the savepoint, and goes on from it (${periodic})`, async () => {
    const { slots, store, valve, program, main } = await start();
    const metadata = await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'SUSPEND' });
    valve.open(60);
    slots.complete(1);
    expect((await slots.ended()).map(({ state }) => state)).toEqual(Array(3).fill('FINISHED'));
    expect(store.committed).toEqual([]);
    const again = await cluster(3, slots);
    const second = await again.program(main);
    again.slotDeployments(second);
    await again.deploy(second, metadata);
    await again.running();
    await flowed(again, 30);
    await again.checkpoint(second, 2, { ...SAVEPOINT, stop: 'DRAIN' });
    again.complete(2);
    await again.ended();
    expect([...store.committed].sort()).toEqual(['0: 20', '1: 20', '2: 20']);
  });
}

test('between its snapshot and the end of the savepoint a suspended job reads nothing; given up, it goes on', async () => {
  const { slots, valve, program } = await started(60_000);
  await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'SUSPEND' });
  valve.open(60);
  // Were anything read, a checkpoint that comes later would say so: nothing but its barrier passes.
  await new Promise((resolve) => setImmediate(resolve));
  expect(slots.reports().reduce((sum, { io }) => sum + io.readRecords, 0)).toBe(30);
  slots.abort(1);
  await flowed(slots, 60);
  expect(states(slots)).toEqual(Array(3).fill('RUNNING'));
});

test('drained tasks say so, whatever their savepoint comes to, and no other checkpoint ends them', async () => {
  const { slots, program } = await started(60_000);
  expect(slots.reports().map(({ drained }) => drained)).toEqual(Array(3).fill(undefined));
  await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'DRAIN' });
  slots.abort(1);
  expect(slots.reports().map(({ drained }) => drained)).toEqual(Array(3).fill(true));
  await expect(slots.checkpoint(program, 2)).rejects.toThrow(/was drained, and ends only with a stop/);
  slots.declines.length = 0;
  await slots.checkpoint(program, 3, { ...SAVEPOINT, stop: 'DRAIN' });
  expect(states(slots)).toEqual(Array(3).fill('RUNNING'));
  slots.complete(3);
  expect((await slots.ended()).map(({ state, drained }) => ({ state, drained }))).toEqual(
    Array(3).fill({ state: 'FINISHED', drained: true }),
  );
});

test('a task whose input has come to its end by itself is not drained by a stop', async () => {
  const slots = await cluster(1);
  const store = new TransactionalStore<number>();
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([10], new Valve(10)))
      .setParallelism(1)
      .map(({ n }: RangeRecord) => n)
      .sinkTo(store.sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  await slots.endOfData();
  await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'DRAIN' });
  expect(slots.reports().some(({ drained }) => drained)).toBe(false);
});

test('a savepoint given up before a source heard of it does not stop the source', async () => {
  const { slots, valve } = await started(60_000);
  slots.abort(1);
  slots.trigger(1, { ...SAVEPOINT, stop: 'SUSPEND' });
  valve.open(60);
  await flowed(slots, 60);
});

test('a job that stopped and lost its tasks before they finished only commits what the savepoint left', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const main = (env: StreamExecutionEnvironment) => {
    env.enableCheckpointing(60_000);
    env.setBufferTimeout(1);
    env
      .fromSource(rangeSource([Number.MAX_SAFE_INTEGER], valve, { endless: true }))
      .setParallelism(1)
      .rebalance()
      .map(({ n }: RangeRecord) => n)
      .setParallelism(1)
      .slotSharingGroup('far')
      .sinkTo(store.sink())
      .setParallelism(1)
      .slotSharingGroup('far');
  };
  const program = await slots.program(main);
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 10);
  const metadata = await slots.checkpoint(program, 1, { ...SAVEPOINT, stop: 'SUSPEND' });
  await slots.close();
  expect(store.committed).toEqual([]);

  valve.open(50);
  const again = await cluster(2, slots);
  const second = await again.program(main);
  again.slotDeployments(second);
  await again.deploy(second, metadata, { suspended: true });
  await again.running();
  await again.checkpoint(second, 2, { stop: 'SUSPEND' });
  again.complete(2);
  expect((await again.ended()).map(({ state }) => state)).toEqual(['FINISHED', 'FINISHED']);
  expect(store.committed).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
