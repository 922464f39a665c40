import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { Collector } from '../api/functions.ts';
import { type KeyedContext, KeyedProcessFunction } from '../api/process-function.ts';
import type { CheckpointMetadata, CheckpointOptions } from '../contracts/checkpoint.ts';
import type { StateBackendsOptions } from '../state/state-backends.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { SlotCluster, type TestProgram } from './testing/slot-cluster.ts';

/**
 * Every kind of checkpoint, by either state backend, restored with fewer, as many and more subtasks: a savepoint
 * into the other backend, as it is promised to be read by any.
 */
type Backend = 'hashmap' | 'lmdb';
type Count = { readonly key: number; readonly n: number };

const clusters: SlotCluster[] = [];
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'matrix-'));
});
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
  rmSync(folder, { recursive: true, force: true });
});

const KEYS = 13;
const END = 260;
const MIDDLE = 130;
const SPLITS = 3;

class CountByKey extends KeyedProcessFunction<number, RangeRecord, Count> {
  processElement(_record: RangeRecord, ctx: KeyedContext<number>, out: Collector<Count>): void {
    const state = ctx.getState<number>({ name: 'count', defaultValue: 0 });
    const n = (state.value() as number) + 1;
    state.update(n);
    out.collect({ key: ctx.getCurrentKey(), n });
  }
}

const counting =
  (sink: GatedSink<Count>, valve: Valve, parallelism: number) =>
  (env: StreamExecutionEnvironment): void => {
    env.setBufferTimeout(1);
    env.enableCheckpointing(600_000);
    env.getCheckpointConfig().enableUnalignedCheckpoints();
    env
      .fromSource(rangeSource(Array<number>(SPLITS).fill(END), valve, { endless: true }))
      .uid('numbers')
      .setParallelism(2)
      .keyBy(({ n }) => n % KEYS)
      .process(new CountByKey())
      .uid('counts')
      .setParallelism(parallelism)
      .slotSharingGroup('far')
      .sinkTo(sink.sink())
      .setParallelism(parallelism)
      .slotSharingGroup('far');
  };

async function cluster(backend: Backend, incremental: boolean, before?: SlotCluster): Promise<SlotCluster> {
  const options: StateBackendsOptions = {
    memoryThresholdBytes: 64,
    incremental,
    backend,
    lmdb: { directory: mkdtempSync(join(folder, 'state-')) },
  };
  const made = new SlotCluster(before?.objects, options);
  clusters.push(made);
  await made.addSlots(6, { exchange: { batchRecords: 5 } });
  return made;
}

async function start(slots: SlotCluster, program: TestProgram, from?: CheckpointMetadata): Promise<void> {
  if (from !== undefined) for (let i = 0; i < 9; i++) slots.slotDeployments(program);
  await slots.deploy(program, from);
  await slots.running();
}

const highest = (sink: GatedSink<Count>) => {
  const last = new Map<number, number>();
  for (const { key, n } of sink.written) last.set(key, Math.max(n, last.get(key) ?? 0));
  return last;
};

const KINDS: readonly {
  readonly what: string;
  readonly options: Partial<CheckpointOptions>;
  readonly incremental: boolean;
  /** Records that the sink takes before the checkpoint. */
  readonly room: number;
  readonly other?: boolean;
}[] = [
  {
    what: 'a savepoint',
    options: { kind: 'SAVEPOINT', location: 'c/savepoints/m/' },
    incremental: true,
    room: 1_000_000,
    other: true,
  },
  { what: 'a full checkpoint', options: {}, incremental: false, room: 1_000_000 },
  { what: 'an incremental checkpoint', options: {}, incremental: true, room: 1_000_000 },
  { what: 'an unaligned full checkpoint', options: { aligned: false }, incremental: false, room: 40 },
  { what: 'an unaligned incremental checkpoint', options: { aligned: false }, incremental: true, room: 40 },
];

describe.each(KINDS)('$what', ({ options, incremental, room, other = false }) => {
  test.each<Backend>(['hashmap', 'lmdb'])(
    'taken of %s is restored exactly with fewer and with more subtasks',
    async (backend) => {
      const sink = new GatedSink<Count>(room);
      const valve = new Valve(MIDDLE);
      const slots = await cluster(backend, incremental);
      const program = await slots.program(counting(sink, valve, 2));
      await start(slots, program);
      await until('some counts', () => sink.written.length >= Math.min(room, SPLITS * MIDDLE));
      for (const id of [1, 2]) {
        await slots.checkpoint(program, id, { aligned: options.aligned ?? true });
        slots.complete(id);
      }
      const metadata = await slots.checkpoint(program, 3, options);
      expect((metadata.inFlight ?? []).length > 0).toBe(options.aligned === false);
      await slots.close();

      const into: Backend = other === (backend === 'hashmap') ? 'lmdb' : 'hashmap';
      for (const parallelism of [1, 4]) {
        const rest = new GatedSink<Count>();
        const again = await cluster(into, incremental, slots);
        const second = await again.program(counting(rest, new Valve(END), parallelism));
        await start(again, second, metadata);
        const perKey = (key: number) => SPLITS * Math.ceil((END - key) / KEYS);
        await until(`all counts with ${parallelism} subtasks`, () => {
          const last = highest(rest);
          return Array.from({ length: KEYS }, (_, key) => (last.get(key) ?? 0) >= perKey(key)).every(Boolean);
        });
        // Behind this barrier nothing is left that could be counted twice.
        await again.checkpoint(second, 4);
        for (const [key, n] of highest(rest)) expect({ key, n }).toEqual({ key, n: perKey(key) });
        await again.close();
      }
    },
  );
});
