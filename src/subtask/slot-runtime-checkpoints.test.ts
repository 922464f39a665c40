import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';
import { TransactionalStore } from './testing/transactional-store.ts';

const clusters: SlotCluster[] = [];

async function cluster(slots: number, predecessor?: SlotCluster): Promise<SlotCluster> {
  const made = new SlotCluster(predecessor?.objects);
  clusters.push(made);
  await made.addSlots(slots, { subtask: { closeTimeoutMs: 500 } });
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

/** Numbers 0, 1, 2, … of one endless source into a two-phase commit sink in another slot. */
function numbers(env: StreamExecutionEnvironment, store: TransactionalStore<number>, valve: Valve): void {
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
}

const upTo = (end: number) => Array.from({ length: end }, (_, i) => i);

async function flowed(slots: SlotCluster, records: number): Promise<void> {
  await until(`${records} records`, () => slots.reports().some(({ io }) => io.readRecords === records), { everyMs: 2 });
}

test('output appears with its checkpoint and not before; a lost notice is made up for by the next', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const program = await slots.program((env) => numbers(env, store, valve));
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 10);
  await slots.checkpoint(program, 1);
  expect(store.committed).toEqual([]);
  slots.complete(1);
  await until('the first commit', () => store.committed.length === 10);
  valve.open(20);
  await flowed(slots, 20);
  await slots.checkpoint(program, 2);
  valve.open(30);
  await flowed(slots, 30);
  await slots.checkpoint(program, 3);
  slots.complete(3);
  await until('both', () => store.committed.length === 30);
  expect(store.committed).toEqual(upTo(30));
  slots.complete(3);
  slots.complete(1);
  expect(slots.reports().every(({ state }) => state === 'RUNNING')).toBe(true);
});

test('a checkpoint whose state cannot be written is declined; its records are in the next one, and committed with it', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const program = await slots.program((env) => {
    numbers(env, store, valve);
    // Keyed state beyond the threshold of what travels inline.
    env
      .fromSource(rangeSource([500], valve, { endless: true }))
      .keyBy(({ n }) => n)
      .reduce((_, b) => b)
      .slotSharingGroup('far')
      .sinkTo(new GatedSink().sink())
      .slotSharingGroup('far');
  });
  await slots.deploy(program);
  await slots.running();
  valve.open(100);
  await flowed(slots, 100);
  slots.objects.intercept = ({ kind }) => {
    if (kind === 'put' || kind === 'upload') throw new Error('the store is away');
  };
  await expect(slots.checkpoint(program, 1)).rejects.toThrow('the store is away');
  slots.abort(1);
  slots.objects.intercept = undefined;
  await slots.checkpoint(program, 2);
  slots.complete(2);
  await until('the commit', () => store.committed.length === 100);
  expect(store.committed).toEqual(upTo(100));
});

test('what was prepared for an aborted checkpoint is restored and committed with a later one', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const main = (env: StreamExecutionEnvironment) => numbers(env, store, valve);
  const program = await slots.program(main);
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 10);
  await slots.checkpoint(program, 1);
  slots.abort(1);
  valve.open(15);
  await flowed(slots, 15);
  const metadata = await slots.checkpoint(program, 2);
  await slots.close();
  expect(store.committed).toEqual([]);
  const again = await cluster(2, slots);
  const restored = await again.program(main);
  again.slotDeployments(restored);
  await again.deploy(restored, metadata);
  await again.running();
  expect(store.committed).toEqual(upTo(15));
  valve.open(20);
  await flowed(again, 5);
  await again.checkpoint(restored, 3);
  again.complete(3);
  await until('the rest', () => store.committed.length === 20);
  expect(store.committed).toEqual(upTo(20));
});

test('an abort notice that names a completed checkpoint commits it', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const program = await slots.program((env) => numbers(env, store, valve));
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 10);
  await slots.checkpoint(program, 1);
  slots.abort(2, 1);
  await until('the commit', () => store.committed.length === 10);
});

test('a checkpoint that died with its leader holds nobody up once a new one has spoken; later ones complete', async () => {
  const slots = await cluster(3);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env.setBufferTimeout(1);
    env
      .fromSource(rangeSource([Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER], valve, { endless: true }))
      .setParallelism(2)
      .rebalance()
      .map(({ n }: RangeRecord) => n)
      .setParallelism(1)
      .slotSharingGroup('far')
      .sinkTo(store.sink())
      .setParallelism(1)
      .slotSharingGroup('far');
  });
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 20);
  // Only one of the two sources hears of it.
  slots.trigger(1, {}, [0]);
  await until('the barrier', () => slots.acks.some((ack) => ack.checkpointId === 1));
  valve.open(20);
  await flowed(slots, 30);
  slots.abort(4, undefined, { andOlder: true });
  await flowed(slots, 40);
  // What the dead leader said may come even later.
  slots.trigger(1, {}, [1]);
  valve.open(30);
  await flowed(slots, 60);
  await slots.checkpoint(program, 5);
  slots.complete(5);
  await until('the commit', () => store.committed.length === 60);
});

test('a commit that fails is tried again; a preparation that fails ends the task, as its records are in no transaction', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<number>(), new Valve(10)];
  store.failCommits = 2;
  const program = await slots.program((env) => numbers(env, store, valve));
  await slots.deploy(program);
  await slots.running();
  await flowed(slots, 10);
  await slots.checkpoint(program, 1);
  slots.complete(1);
  await until('the commit', () => store.committed.length === 10);
  expect(store.commits).toBe(3);
  store.failPrepares = 1;
  valve.open(20);
  await flowed(slots, 20);
  slots.trigger(2);
  await until('the sink to fail', () =>
    slots.reports().some(({ state, error }) => state === 'FAILED' && error?.message.includes('the disk is full')),
  );
  expect(store.committed).toEqual(upTo(10));
});

test('a plain sink is flushed before a checkpoint is acknowledged, and fails when it cannot be', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<number>();
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([5], new Valve(), { endless: true }))
      .map(({ n }: RangeRecord) => n)
      .sinkTo(sink.sink());
  });
  await slots.deploy(program);
  await slots.running();
  await slots.checkpoint(program, 1);
  expect(sink.flushes).toBe(1);
  sink.failFlushes = 1;
  slots.trigger(2);
  const [report] = await slots.ended();
  expect(report).toMatchObject({ state: 'FAILED' });
  expect(report?.error?.message).toContain('failed to flush: the pipe is broken');
});

test('a checkpoint of a backpressured job is taken once there is room, and the cut is exact', async () => {
  const slots = await cluster(2);
  const store = new TransactionalStore<number>();
  const gate = new GatedSink<number>(10);
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    const stream = env
      .fromSource(rangeSource([50_000], new Valve(), { endless: true }))
      .setParallelism(1)
      .flatMap(({ n }: RangeRecord) => [n])
      .setParallelism(1)
      .rebalance()
      .map((n) => n)
      .setParallelism(1)
      .slotSharingGroup('far');
    stream.sinkTo(store.sink()).setParallelism(1).slotSharingGroup('far');
    stream.sinkTo(gate.sink()).setParallelism(1).slotSharingGroup('far');
  });
  await slots.deploy(program);
  await slots.running();
  await until('backpressure', () => slots.reports().some(({ io }) => io.backPressuredMs > 20));
  const checkpoint = slots.checkpoint(program, 1);
  gate.allow(100_000);
  await checkpoint;
  slots.complete(1);
  await until('the commit', () => store.committed.length > 0);
  expect(store.committed).toEqual(upTo(store.committed.length));
});

test('a source that ends finishes after the next checkpoint while others go on; then its consumer needs no barrier from it', async () => {
  const slots = await cluster(2);
  const [store, valve] = [new TransactionalStore<string>(), new Valve(10)];
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env.setBufferTimeout(1);
    const bounded = env
      .fromSource(rangeSource([5]), 'bounded')
      .setParallelism(1)
      .map(({ n }: RangeRecord) => `b${n}`)
      .setParallelism(1);
    const endless = env
      .fromSource(rangeSource([1e9], valve, { endless: true }), 'endless')
      .setParallelism(1)
      .map(({ n }: RangeRecord) => `e${n}`)
      .setParallelism(1);
    bounded
      .rebalance()
      .union(endless.rebalance())
      .map((s) => s)
      .setParallelism(1)
      .slotSharingGroup('far')
      .sinkTo(store.sink())
      .setParallelism(1)
      .slotSharingGroup('far');
  });
  await slots.deploy(program);
  await slots.running();
  await until('the bounded source to end', () => slots.reports().some(({ endOfData }) => endOfData));
  await slots.checkpoint(program, 1);
  slots.complete(1);
  await until('the bounded source to finish', () => slots.reports().some(({ state }) => state === 'FINISHED'));
  await until('the commit', () => store.committed.length === 15);
  valve.open(20);
  await until('more records', () => slots.reports().some(({ io }) => io.readRecords === 25));
  const acks = slots.acks.length;
  slots.trigger(2);
  await until('the two that go on', () => slots.acks.length === acks + 2);
  slots.complete(2);
  await until('the second commit', () => store.committed.length === 25);
  expect([...store.committed].sort()).toEqual([...upTo(5).map((n) => `b${n}`), ...upTo(20).map((n) => `e${n}`)].sort());
  // The finished one can take part no more, and says so at once instead of letting the master wait.
  expect(slots.declines).toMatchObject([{ checkpointId: 2, reason: { code: 'CONFLICT' } }]);
});

test('when every producer has finished, their consumer begins the checkpoint itself', async () => {
  const slots = await cluster(2);
  const store = new TransactionalStore<number>();
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([100]))
      .setParallelism(1)
      .rebalance()
      .map(({ n }: RangeRecord) => n)
      .setParallelism(1)
      .slotSharingGroup('far')
      .sinkTo(store.sink())
      .setParallelism(1)
      .slotSharingGroup('far');
  });
  await slots.deploy(program);
  await slots.endOfData();
  // As if the notice had reached only the source's worker before the next checkpoint began.
  await slots.checkpoint(program, 1);
  const [source, consumer] = program.graph.vertices;
  const reportOf = (vertex: typeof source) => slots.reports().find(({ vertexId }) => vertexId === vertex?.id);
  const runtimeOf = (vertex: typeof source) =>
    slots.runtimes.find((runtime) => runtime.attempts().some(({ vertexId }) => vertexId === vertex?.id));
  runtimeOf(source)?.notifyCheckpointComplete({ deployment: slots.deployment, checkpointId: 1 });
  await until('the source to finish', () => reportOf(source)?.state === 'FINISHED');
  expect(reportOf(consumer)?.state).toBe('RUNNING');
  const attemptId = reportOf(consumer)?.attemptId;
  if (attemptId === undefined) throw new Error('the consumer has an attempt');
  runtimeOf(consumer)?.triggerCheckpoint({
    attemptIds: [attemptId],
    deployment: slots.deployment,
    checkpointId: 2,
    timestampMs: 0,
    options: { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 },
  });
  await until('its acknowledgement', () => slots.acks.some(({ checkpointId }) => checkpointId === 2));
  slots.complete(2);
  await slots.ended();
  expect(store.committed).toEqual(upTo(100));
});

test('a trigger before the task runs is declined with its state', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<unknown>();
  sink.hangOnOpen = true;
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env.fromSource(rangeSource([5])).sinkTo(sink.sink());
  });
  await slots.deploy(program);
  slots.trigger(1);
  expect(slots.declines).toMatchObject([
    { checkpointId: 1, reason: { message: expect.stringContaining('not RUNNING') } },
  ]);
});
