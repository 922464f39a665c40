import { afterEach, describe, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import { parseInFlightChannel } from '../contracts/state-handles.ts';
import { SeededRandom } from '../kernel/random.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster, type TestProgram } from './testing/slot-cluster.ts';

type Count = { readonly key: number; readonly n: number };

const clusters: SlotCluster[] = [];

async function cluster(slots: number, predecessor?: SlotCluster): Promise<SlotCluster> {
  const made = new SlotCluster(predecessor?.objects);
  clusters.push(made);
  // Small batches, so that much waits in many messages.
  await made.addSlots(slots, { exchange: { batchRecords: 7 } });
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

const KEYS = 11;
const END = 400;

interface Shape {
  readonly parallelism: number;
  readonly timeoutMs?: number;
  /** Producers and consumers in the same slots. */
  readonly together?: boolean;
  /** A shuffle without keys in between. */
  readonly rebalance?: boolean;
  /** Each record becomes so many, in the middle of which outputs are full. */
  readonly fanOut?: number;
}

/** Two sources, a count for each key, a sink that takes what it is allowed to. */
const counting =
  (sink: GatedSink<Count>, valve: Valve, { parallelism, timeoutMs = 0, together, rebalance, fanOut = 1 }: Shape) =>
  (env: StreamExecutionEnvironment) => {
    env.setBufferTimeout(1);
    env.enableCheckpointing(600_000);
    env.getCheckpointConfig().enableUnalignedCheckpoints().setAlignedCheckpointTimeout(timeoutMs);
    const group = together === true ? 'default' : 'far';
    const numbers = env
      .fromSource(rangeSource([END, END], valve, { endless: true }))
      .uid('numbers')
      .setParallelism(2)
      .flatMap(({ n }) => Array.from({ length: fanOut }, (): Count => ({ key: n % KEYS, n: 1 })))
      .setParallelism(2);
    const dealt =
      rebalance === true
        ? numbers
            .rebalance()
            .map((count) => count)
            .setParallelism(parallelism)
        : numbers;
    dealt
      .keyBy(({ key }) => key)
      .reduce((a, b) => ({ key: a.key, n: a.n + b.n }))
      .uid('counts')
      .setParallelism(parallelism)
      .slotSharingGroup(group)
      .sinkTo(sink.sink())
      .setParallelism(parallelism)
      .slotSharingGroup(group);
  };

const SLOTS = 6;

/** The backpressure of a sink that takes no more has reached the sources. */
async function stuck(slots: SlotCluster): Promise<void> {
  let last = -1;
  await until(
    'everything to wait for the sink',
    () => {
      const moved = slots.reports().reduce((sum, { io }) => sum + io.readRecords + io.writeRecords, 0);
      const same = moved === last;
      last = moved;
      return same && moved > 0;
    },
    { everyMs: 25 },
  );
}

const inFlightOf = ({ inFlight = [] }: CheckpointMetadata) =>
  inFlight.flatMap(({ batches, side }) => batches.states.map(({ offsets }) => ({ side, batches: offsets.length - 1 })));

async function finish(slots: SlotCluster, sink: GatedSink<Count>, fanOut = 1): Promise<void> {
  sink.allow(1_000_000);
  await until('all counts', () => {
    const last = new Map<number, number>();
    for (const { key, n } of sink.written) last.set(key, Math.max(n, last.get(key) ?? 0));
    return [...last.values()].reduce((a, b) => a + b, 0) >= 2 * END * fanOut;
  });
  // Nothing more may come: what is counted twice would show now.
  await slots.checkpoint(programs.get(slots) as TestProgram, 99);
  const last = new Map<number, number>();
  for (const { key, n } of sink.written) last.set(key, Math.max(n, last.get(key) ?? 0));
  for (let key = 0; key < KEYS; key++) expect(last.get(key)).toBe(2 * fanOut * Math.ceil((END - key) / KEYS));
}

const programs = new Map<SlotCluster, TestProgram>();

async function start(
  shape: Shape,
  sink: GatedSink<Count>,
  from?: { readonly slots: SlotCluster; readonly metadata: CheckpointMetadata },
  valve = new Valve(),
): Promise<SlotCluster> {
  const slots = await cluster(SLOTS, from?.slots);
  const program = await slots.program(counting(sink, valve, shape));
  programs.set(slots, program);
  if (from !== undefined) for (let i = 0; i < 5; i++) slots.slotDeployments(program);
  await slots.deploy(program, from?.metadata);
  await slots.running();
  return slots;
}

const unaligned = (timeoutMs = 0) => ({ aligned: false, alignedTimeoutMs: timeoutMs });

test('behind a sink that takes nothing an aligned checkpoint does not come through, an unaligned one does', async () => {
  const sink = new GatedSink<Count>(20);
  const slots = await start({ parallelism: 2 }, sink);
  await stuck(slots);
  slots.trigger(1);
  await stuck(slots);
  expect(slots.acks.filter(({ checkpointId }) => checkpointId === 1).length).toBeLessThan(4);
  slots.abort(1);
  const metadata = await slots.checkpoint(programs.get(slots) as TestProgram, 2, unaligned());
  expect(inFlightOf(metadata).map(({ side }) => side)).toEqual(expect.arrayContaining(['INPUT', 'OUTPUT']));
  expect(slots.acks.some(({ inFlightBytes = 0 }) => inFlightBytes > 0)).toBe(true);

  const again = new GatedSink<Count>(0);
  await finish(await start({ parallelism: 2 }, again, { slots, metadata }), again);
});

describe.each([
  { what: 'keyed', shape: { parallelism: 2 } },
  { what: 'keyed, in the same slots', shape: { parallelism: 2, together: true } },
  { what: 'rebalanced, then keyed', shape: { parallelism: 2, rebalance: true } },
  { what: 'with a fan-out that fills the outputs', shape: { parallelism: 2, fanOut: 9 } },
  { what: 'aligned at first, overtaking after a while', shape: { parallelism: 2, timeoutMs: 5 } },
])('records in flight, $what', ({ shape }) => {
  test.each([1, 3])('are processed once after a restore with parallelism %i', async (parallelism) => {
    const { timeoutMs } = shape as Shape;
    const { fanOut = 1 } = shape as Shape;
    let sink = new GatedSink<Count>(30);
    let slots = await start(shape, sink);
    await stuck(slots);
    const first = await slots.checkpoint(programs.get(slots) as TestProgram, 1, unaligned(timeoutMs));
    expect(inFlightOf(first).length).toBeGreaterThan(0);
    const before = slots;
    await slots.close();

    // Again before much of it was processed: what was restored is in flight once more.
    sink = new GatedSink<Count>(3);
    slots = await start({ ...shape, parallelism }, sink, { slots: before, metadata: first });
    await stuck(slots);
    const second = await slots.checkpoint(programs.get(slots) as TestProgram, 2, unaligned(timeoutMs));
    await slots.close();

    sink = new GatedSink<Count>(0);
    slots = await start({ ...shape, parallelism: 2 }, sink, { slots, metadata: second });
    await finish(slots, sink, fanOut);
  });
});

test('whatever the moment, a restore loses nothing and repeats nothing', async () => {
  const random = new SeededRandom(7);
  for (let round = 0; round < 4; round++) {
    const shape: Shape = {
      parallelism: 1 + random.int(3),
      timeoutMs: [0, 0, 1, 4][random.int(4)] as number,
      together: random.next() < 0.3,
      rebalance: random.next() < 0.5,
      fanOut: [1, 1, 4][random.int(3)] as number,
    };
    let sink = new GatedSink<Count>(1 + random.int(200));
    let slots = await start(shape, sink);
    let metadata: CheckpointMetadata | undefined;
    for (let id = 1; id <= 3; id++) {
      await until('some records', () => sink.written.length > 0);
      metadata = await slots.checkpoint(programs.get(slots) as TestProgram, id, unaligned(shape.timeoutMs));
      if (random.next() < 0.5) slots.complete(id);
      sink.allow(random.int(60));
    }
    await slots.close();
    sink = new GatedSink<Count>(0);
    const parallelism = 1 + random.int(3);
    slots = await start({ ...shape, parallelism }, sink, { slots, metadata: metadata as CheckpointMetadata });
    await finish(slots, sink, shape.fanOut).catch((error: unknown) => {
      throw new Error(`round ${round}, ${JSON.stringify({ shape, parallelism })}`, { cause: error });
    });
    await slots.close();
  }
});

test('no barrier overtakes on forward, rescale and broadcast edges: they wait their turn and all is exact', async () => {
  const sink = new GatedSink<Count>(10_000);
  const valve = new Valve(50);
  const slots = await cluster(SLOTS);
  const program = await slots.program((env) => {
    env.setBufferTimeout(1);
    env.enableCheckpointing(600_000);
    env.getCheckpointConfig().enableUnalignedCheckpoints();
    env
      .fromSource(rangeSource([END, END], valve, { endless: true }))
      .setParallelism(2)
      .rescale()
      .map(({ n }): Count => ({ key: n, n: 1 }))
      .setParallelism(1)
      .broadcast()
      .map((count) => count)
      .setParallelism(2)
      .sinkTo(sink.sink())
      .setParallelism(2);
  });
  await slots.deploy(program);
  await slots.running();
  await until('all records', () => sink.written.length === 200);
  const metadata = await slots.checkpoint(program, 1, unaligned());
  expect(metadata.inFlight).toEqual([]);
});

test('a channel in flight is named by who wrote it and who was to read it', () => {
  expect(parseInFlightChannel('3-12')).toEqual({ producer: 3, consumer: 12 });
});
