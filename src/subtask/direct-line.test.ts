import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import { KeyedProcessFunction } from '../api/process-function.ts';
import type { Source } from '../api/source.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

const clusters: SlotCluster[] = [];

async function cluster(slots: number): Promise<SlotCluster> {
  const made = new SlotCluster();
  clusters.push(made);
  await made.addSlots(slots, { subtask: { closeTimeoutMs: 500 } });
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

type Tuple = [key: number, n: number];

/** Emits the given records by and by, and says after each how many have come out at the other end. */
function watchedSource(count: number, arrived: () => number, seen: number[], make: (n: number) => Tuple) {
  let next = 0;
  return {
    name: 'Watched',
    boundedness: 'BOUNDED',
    enumerateSplits: () => [{}],
    createReader: () => ({
      open: async () => undefined,
      poll: (out, recordsMax) => {
        for (let i = 0; i < recordsMax && next < count; i++) {
          out.collect(make(next++));
          seen.push(arrived());
        }
        return next < count ? 'more' : 'end';
      },
      available: async () => undefined,
      snapshot: () => [],
      close: async () => undefined,
    }),
  } satisfies Source<Tuple, object>;
}

test('with nothing under way a record is at the end of the next task before its source emits another', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<Tuple>();
  const seen: number[] = [];
  const program = await slots.program((env) => {
    env
      .fromSource(
        watchedSource(
          60_000,
          () => sink.written.length,
          seen,
          (n) => [n % 3, 1],
        ),
      )
      .setParallelism(1)
      .keyBy(([key]) => key)
      .sum(1)
      .setParallelism(1)
      .sinkTo(sink.sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  await slots.ended();
  expect(sink.written.length).toBe(60_000);
  expect(sink.written.at(-1)).toEqual([2, 20_000]);
  // The first gather, a queue full at most, until the consumer has said that it has nothing to do.
  expect(seen.filter((arrived, i) => arrived === i + 1).length).toBeGreaterThan(20_000);
  const io = slots.reports().map(({ io: { readRecords, writeRecords } }) => [readRecords, writeRecords]);
  expect(io.sort((a, b) => (a[0] as number) - (b[0] as number))).toEqual([
    [0, 60_000],
    [60_000, 0],
  ]);
});

test('a sink that is full stops the task two steps up the line', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<Tuple>(100);
  const seen: number[] = [];
  const program = await slots.program((env) => {
    env
      .fromSource(
        watchedSource(
          300_000,
          () => sink.written.length,
          seen,
          (n) => [n % 3, 1],
        ),
      )
      .setParallelism(1)
      .keyBy(([key]) => key)
      .sum(1)
      .setParallelism(1)
      .sinkTo(sink.sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  let before = -1;
  await until('the source to stand still', () => {
    const still = seen.length === before && sink.written.length >= 100;
    before = seen.length;
    return still;
  });
  expect(sink.written.length).toBe(100);
  // The queue between the tasks, and one batch.
  expect(seen.length).toBeLessThan(20_000);
  sink.allow(Number.POSITIVE_INFINITY);
  await slots.ended();
  expect(sink.written.length).toBe(300_000);
});

test('what fails in the consumer is its failure, not that of the task that called it', async () => {
  const slots = await cluster(1);
  const program = await slots.program((env) => {
    env
      .fromSource(rangeSource([5_000], new Valve(), { endless: true }))
      .setParallelism(1)
      .name('numbers')
      .keyBy(({ n }) => n % 3)
      .reduce((a, b) => {
        if (b.n === 4_000) throw new Error('four thousand');
        return a;
      })
      .setParallelism(1)
      .name('thinker')
      .sinkTo(new GatedSink<unknown>().sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  await until('the failure', () => slots.reports().some(({ state }) => state === 'FAILED'));
  const states = slots.reports().map(({ state, error }) => error?.message ?? state);
  expect(states.filter((text) => text.includes('four thousand'))).toEqual([
    expect.stringMatching(/"thinker" \(1 of 2 in .*\) threw Error: four thousand; record: .*n: 4000/),
  ]);
  expect(states).toContain('RUNNING');
});

test('what keeps and changes records has its own', async () => {
  class Keeper extends KeyedProcessFunction<number, Tuple, Tuple> {
    processElement(value: Tuple, ctx: Parameters<KeyedProcessFunction<number, Tuple, Tuple>['processElement']>[1]) {
      const state = ctx.getState<Tuple>({ name: 'kept' });
      const kept = state.value() ?? value;
      kept[1] += 1_000;
      state.update(kept);
    }
  }
  const slots = await cluster(1);
  const made: Tuple[] = [];
  const program = await slots.program((env) => {
    const tuples = env
      .fromSource(
        watchedSource(
          500,
          () => 0,
          [],
          (n) => {
            const tuple: Tuple = [n % 3, n];
            made.push(tuple);
            return tuple;
          },
        ),
      )
      .setParallelism(1);
    const keyed = tuples.keyBy(([key]) => key);
    keyed.process(new Keeper()).setParallelism(1).sinkTo(new GatedSink<Tuple>().sink('a')).setParallelism(1);
    keyed
      .reduce((a, b) => {
        a[1] += b[1];
        return a;
      })
      .setParallelism(1)
      .sinkTo(new GatedSink<Tuple>().sink('b'))
      .setParallelism(1);
  });
  await slots.deploy(program);
  await slots.ended();
  expect(made).toEqual(made.map((_, n) => [n % 3, n]));
});
