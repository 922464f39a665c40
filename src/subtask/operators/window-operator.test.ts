import { afterEach, expect, test } from 'vitest';
import { until } from '../../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../../api/environment.ts';
import type { Collector } from '../../api/functions.ts';
import { OutputTag } from '../../api/process-function.ts';
import { WatermarkStrategy } from '../../api/watermark-strategy.ts';
import { ProcessWindowFunction, TumblingEventTimeWindows, type WindowContext } from '../../api/windows.ts';
import { GatedSink } from '../testing/gated-sink.ts';
import { type RangeRecord, rangeSource, Valve } from '../testing/range-source.ts';
import { SlotCluster } from '../testing/slot-cluster.ts';
import { TransactionalStore } from '../testing/transactional-store.ts';

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

/** Record n happened at second n. */
const byN = WatermarkStrategy.forBoundedOutOfOrderness<RangeRecord>(3_000).withTimestampAssigner(({ n }) => n * 1_000);
const tenSeconds = TumblingEventTimeWindows.of(10_000);
const KEYS = 7;

/** What each key has in each window, in the fewest words: `key@start`, how many records and the sum of their numbers. */
function expected(ends: readonly number[]): string[] {
  const found = new Map<string, [count: number, sum: number]>();
  for (const end of ends) {
    for (let n = 0; n < end; n++) {
      const name = `${n % KEYS}@${Math.floor(n / 10) * 10_000}`;
      const [count, sum] = found.get(name) ?? [0, 0];
      found.set(name, [count + 1, sum + n]);
    }
  }
  return [...found].map(([name, [count, sum]]) => `${name} ${count} ${sum}`).sort();
}

class Describe extends ProcessWindowFunction<RangeRecord, string, number> {
  private opened = 0;

  constructor(private readonly onFired: () => void = () => undefined) {
    super();
  }

  override open(): void {
    this.opened++;
  }

  process(key: number, ctx: WindowContext, elements: readonly RangeRecord[], out: Collector<string>): void {
    if (this.opened !== 1) throw new Error('open comes once, before all');
    this.onFired();
    const sum = elements.reduce((total, { n }) => total + n, 0);
    out.collect(`${key}@${ctx.window.startMs} ${elements.length} ${sum}`);
  }
}

test('each key has one result a window, whatever gathers its records', async () => {
  const slots = await cluster(3);
  const ends = [200, 130, 95];
  const sinks = {
    process: new GatedSink<string>(),
    aggregate: new GatedSink<{ key: number; count: number; sum: number }>(),
    reduce: new GatedSink<{ key: number; at: number; n: number }>(),
    sum: new GatedSink<{ key: number; n: number }>(),
    pair: new GatedSink<[number, number]>(),
  };
  const program = await slots.program((env) => {
    env.setParallelism(2);
    env.setAutoWatermarkInterval(2);
    const numbers = env.fromSource(rangeSource(ends), byN).setParallelism(3);
    const keyed = numbers.keyBy(({ n }) => n % KEYS).window(tenSeconds);
    keyed.process(() => new Describe()).sinkTo(sinks.process.sink());
    keyed
      .aggregate({
        createAccumulator: () => ({ key: 0, count: 0, sum: 0 }),
        add: ({ n }, held) => {
          held.key = n % KEYS;
          held.count++;
          held.sum += n;
          return held;
        },
        getResult: (held) => held,
      })
      .sinkTo(sinks.aggregate.sink());
    const flat = numbers.map(({ n }) => ({ key: n % KEYS, at: Math.floor(n / 10) * 10_000, n }));
    flat
      .keyBy(({ key }) => key)
      .window(tenSeconds)
      .reduce((a, b) => ({ key: a.key, at: a.at, n: a.n + b.n }))
      .sinkTo(sinks.reduce.sink());
    numbers
      .map(({ n }) => ({ key: n % KEYS, n }))
      .keyBy(({ key }) => key)
      .window(tenSeconds)
      .sum('n')
      .sinkTo(sinks.sum.sink());
    numbers
      .map(({ n }): [number, number] => [n % KEYS, n])
      .keyBy(([key]) => key)
      .window(tenSeconds)
      .sum(1)
      .sinkTo(sinks.pair.sink());
  });
  await slots.deploy(program);
  await slots.ended();
  expect(slots.reports().map(({ state, error }) => error?.message ?? state)).not.toContain('FAILED');
  const all = expected(ends);
  expect([...sinks.process.written].sort()).toEqual(all);
  const keyAndSum = all.map((text) => text.replace(/@\d+ \d+/, '')).sort();
  expect(sinks.aggregate.written.map(({ key, sum }) => `${key} ${sum}`).sort()).toEqual(keyAndSum);
  const reduced = sinks.reduce.written.map(({ key, at, n }) => `${key}@${at} ${n}`).sort();
  expect(reduced).toEqual(all.map((text) => text.replace(/ \d+/, '')).sort());
  expect(sinks.sum.written.map(({ key, n }) => `${key} ${n}`).sort()).toEqual(keyAndSum);
  expect(sinks.pair.written.map(([key, n]) => `${key} ${n}`).sort()).toEqual(keyAndSum);
});

test('windows are part of every checkpoint, and each fires once after a restore with another parallelism', async () => {
  const ends = [200, 160, 120];
  const [store, valve] = [new TransactionalStore<string>(), new Valve(95)];
  let fired = 0;
  const main = (parallelism: number) => (env: StreamExecutionEnvironment) => {
    env.enableCheckpointing(60_000);
    env.setAutoWatermarkInterval(2);
    env
      .fromSource(rangeSource(ends, valve), byN, 'numbers')
      .setParallelism(3)
      .keyBy(({ n }) => n % KEYS)
      .window(tenSeconds)
      .process(() => new Describe(() => fired++))
      .setParallelism(parallelism)
      .sinkTo(store.sink())
      .setParallelism(parallelism);
  };
  const before = await cluster(3);
  const first = await before.program(main(2));
  await before.deploy(first);
  await before.running();
  // Up to the valve event time reaches 91 s: nine windows of every key have passed, one is open.
  await until('the windows that are due before the valve', () => fired === 9 * KEYS, { timeoutMs: 20_000 });
  const metadata = await before.checkpoint(first, 1);
  before.complete(1);
  before.cancelAll();
  await before.ended();

  const after = await cluster(4, before);
  const second = await after.program(main(4));
  await after.deploy(second, metadata);
  await after.running();
  valve.open();
  await after.endOfData();
  await after.checkpoint(second, 2);
  after.complete(2);
  await after.ended();
  expect([...store.committed].sort()).toEqual(expected(ends));
});

test('a record whose window has fired is left out, or goes to the side output', async () => {
  const late = new OutputTag<[key: string, atMs: number]>('late');
  const slots = await cluster(1);
  const [sink, side] = [new GatedSink<[string, number]>(), new GatedSink<[string, number]>()];
  const valve = new Valve(3);
  const records: readonly [string, number][] = [
    ['a', 1_000],
    ['a', 9_999],
    ['a', 25_000],
    // Behind the watermark of 24,999: too late for the first window and for the second, in time for the third.
    ['a', 9_998],
    ['b', 19_999],
    ['b', 20_000],
  ];
  const program = await slots.program((env) => {
    env.setAutoWatermarkInterval(1);
    const summed = env
      .fromSource(
        rangeSource([records.length], valve),
        WatermarkStrategy.forMonotonousTimestamps<RangeRecord>().withTimestampAssigner(
          ({ n }) => (records[n] as [string, number])[1],
        ),
      )
      .setParallelism(1)
      .map(({ n }) => records[n] as [string, number])
      .setParallelism(1)
      .keyBy(([key]) => key)
      .window(TumblingEventTimeWindows.of(10_000))
      .sideOutputLateData(late)
      .sum(1)
      .setParallelism(1);
    summed.sinkTo(sink.sink()).setParallelism(1);
    summed.getSideOutput(late).sinkTo(side.sink()).setParallelism(1);
  });
  await slots.deploy(program);
  await until('the first window', () => sink.written.length === 1);
  valve.open();
  await slots.ended();
  expect(sink.written[0]).toEqual(['a', 10_999]);
  expect(sink.written.slice(1).sort()).toEqual([
    ['a', 25_000],
    ['b', 20_000],
  ]);
  expect(side.written).toEqual([
    ['a', 9_998],
    ['b', 19_999],
  ]);
});

test('results carry the last millisecond of their window, so windows of windows work', async () => {
  const slots = await cluster(2);
  const sink = new GatedSink<[number, number]>();
  const program = await slots.program((env) => {
    env.setParallelism(2);
    env
      .fromSource(rangeSource([120]), byN)
      .map(({ n }): [number, number] => [n % 3, 1])
      .keyBy(([key]) => key)
      .window(tenSeconds)
      .sum(1)
      .map(([, count]): [number, number] => [0, count])
      .keyBy(([key]) => key)
      .window(TumblingEventTimeWindows.of(60_000))
      .sum(1)
      .sinkTo(sink.sink());
  });
  await slots.deploy(program);
  await slots.ended();
  expect(sink.written).toEqual([
    [0, 60],
    [0, 60],
  ]);
});

test('errors name the window operator and the record, or the window', async () => {
  const failing = async (where: 'key' | 'add' | 'result' | 'time') => {
    const slots = await cluster(1);
    const program = await slots.program((env) => {
      const source = where === 'time' ? env.fromSource(rangeSource([3])) : env.fromSource(rangeSource([3]), byN);
      source
        .setParallelism(1)
        .keyBy(({ n }) => {
          if (where === 'key' && n === 2) throw new Error('no key');
          return n;
        })
        .window(tenSeconds)
        .aggregate({
          createAccumulator: () => 0,
          add: ({ n }, sum) => {
            if (where === 'add' && n === 1) throw new Error('no sum');
            return sum + n;
          },
          getResult: (sum) => {
            if (where === 'result') throw new Error('no result');
            return sum;
          },
        })
        .setParallelism(1)
        .name('ten seconds')
        .sinkTo(new GatedSink<number>().sink())
        .setParallelism(1);
    });
    await slots.deploy(program);
    await slots.ended();
    return slots.reports().find(({ state }) => state === 'FAILED')?.error?.message ?? '';
  };
  expect(await failing('key')).toMatch(/threw Error: no key; record: .*n: 2/);
  expect(await failing('add')).toMatch(/"ten seconds" \(1 of 2 in .*\) threw Error: no sum; record: .*n: 1/);
  expect(await failing('result')).toMatch(/"ten seconds" .* threw Error: no result; record: .*startMs: 0/);
  expect(await failing('time')).toMatch(/"ten seconds" .*the record has no timestamp/);
});
