import { afterEach, describe, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { DataStream } from '../api/data-stream.ts';
import type { Collector } from '../api/functions.ts';
import { type KeyedContext, KeyedProcessFunction } from '../api/process-function.ts';
import type { Sink } from '../api/sink.ts';
import { WatermarkStrategy } from '../api/watermark-strategy.ts';
import { type RangeRecord, rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

let slots: SlotCluster;
afterEach(() => slots.close());

/** What each subtask of the sink was given, in its order. */
function sortingSink(subtasks: RangeRecord[][]): Sink<RangeRecord> {
  return {
    name: 'Sorting',
    createWriter: ({ subtaskIndex }) => ({
      open: () => Promise.resolve(),
      write: (value) => void subtasks[subtaskIndex]?.push(value),
      ready: () => undefined,
      flush: () => Promise.resolve(),
      close: () => Promise.resolve(),
    }),
  };
}

type Partition = (stream: DataStream<RangeRecord>) => DataStream<RangeRecord>;

/** Two producers of 60 records each, in slots of their own. */
async function distribute(partition: Partition, consumers: number): Promise<RangeRecord[][]> {
  slots = new SlotCluster();
  await slots.addSlots(Math.max(2, consumers));
  const subtasks = Array.from({ length: consumers }, (): RangeRecord[] => []);
  const program = await slots.program((env) => {
    const numbers = env.fromSource(rangeSource([60, 60])).setParallelism(2);
    partition(numbers).sinkTo(sortingSink(subtasks)).setParallelism(consumers);
  });
  await slots.deploy(program);
  const ended = await slots.ended();
  expect(ended.map(({ state, error }) => error?.message ?? state)).toEqual(ended.map(() => 'FINISHED'));
  return subtasks;
}

const from = (records: readonly RangeRecord[], split: string) => records.filter((one) => one.split === split);
const numbers = (records: readonly RangeRecord[]) => records.map(({ n }) => n).sort((a, b) => a - b);
const ALL = Array.from({ length: 60 }, (_, n) => n);

describe('how a stream is distributed', () => {
  test('rebalance gives every consumer as many records of every producer', async () => {
    const subtasks = await distribute((stream) => stream.rebalance(), 4);
    for (const split of ['s0', 's1']) {
      expect(subtasks.map((records) => from(records, split).length)).toEqual([15, 15, 15, 15]);
      expect(numbers(subtasks.flatMap((records) => from(records, split)))).toEqual(ALL);
    }
  });

  test('rescale shares each producer among consumers of its own', async () => {
    const up = await distribute((stream) => stream.rescale(), 4);
    expect(up.map((records) => from(records, 's0').length)).toEqual([30, 30, 0, 0]);
    expect(up.map((records) => from(records, 's1').length)).toEqual([0, 0, 30, 30]);
    await slots.close();
    const down = await distribute((stream) => stream.rescale(), 1);
    expect(down.map((records) => records.length)).toEqual([120]);
  });

  test('broadcast gives everything to everyone, each producer in order', async () => {
    const subtasks = await distribute((stream) => stream.broadcast(), 3);
    for (const records of subtasks) {
      expect(from(records, 's0').map(({ n }) => n)).toEqual(ALL);
      expect(from(records, 's1').map(({ n }) => n)).toEqual(ALL);
    }
  });

  test('global gives everything to the first', async () => {
    const subtasks = await distribute((stream) => stream.global(), 3);
    expect(subtasks.map((records) => records.length)).toEqual([120, 0, 0]);
  });

  test('shuffle loses nothing, doubles nothing, and leaves nobody out', async () => {
    const subtasks = await distribute((stream) => stream.shuffle(), 3);
    expect(numbers(subtasks.flat())).toEqual(ALL.flatMap((n) => [n, n]));
    for (const records of subtasks) expect(records.length).toBeGreaterThan(10);
  });

  test('forward keeps subtask by subtask, in order', async () => {
    const subtasks = await distribute((stream) => stream.forward(), 2);
    expect(subtasks.map((records) => records.map(({ n }) => n))).toEqual([ALL, ALL]);
    expect(subtasks.map((records) => new Set(records.map(({ split }) => split)).size)).toEqual([1, 1]);
  });

  test('forward between different parallelisms is an error that names both', async () => {
    await expect(distribute((stream) => stream.forward(), 3)).rejects.toThrow(
      'forward() needs equal parallelism, but "Range" has 2 and "Sorting" 3',
    );
  });
});

/** Fires for each key at the end of each ten seconds. */
class EveryTenSeconds extends KeyedProcessFunction<number, RangeRecord, RangeRecord> {
  constructor(private readonly fired: Set<string>) {
    super();
  }

  processElement(_value: RangeRecord, ctx: KeyedContext<number>): void {
    ctx.timerService().registerEventTimeTimer(Math.floor((ctx.timestamp() as number) / 10_000) * 10_000 + 9_999);
  }

  override onTimer(timestampMs: number, ctx: KeyedContext<number>, _out: Collector<RangeRecord>): void {
    this.fired.add(`${ctx.getCurrentKey()}@${timestampMs}`);
  }
}

describe('watermarks pass', () => {
  const partitions: readonly [string, Partition][] = [
    ['rebalance', (stream) => stream.rebalance()],
    ['rescale', (stream) => stream.rescale()],
    ['broadcast', (stream) => stream.broadcast()],
    ['global', (stream) => stream.global()],
    ['shuffle', (stream) => stream.shuffle()],
    ['hash', (stream) => stream.keyBy(({ n }) => n % 5)],
  ];

  test.each(partitions)(
    '%s, also to consumers that get no record, as the least of all producers',
    async (_, partition) => {
      slots = new SlotCluster();
      await slots.addSlots(4);
      const fired = new Set<string>();
      const valve = new Valve(95);
      const byN = WatermarkStrategy.forBoundedOutOfOrderness<RangeRecord>(3_000).withTimestampAssigner(
        ({ n }) => n * 1_000,
      );
      const program = await slots.program((env) => {
        env.setBufferTimeout(1).setAutoWatermarkInterval(2);
        const source = env.fromSource(rangeSource([200, 200], valve), byN, 'numbers').setParallelism(2);
        partition(source)
          .map((value) => value)
          .setParallelism(4)
          .keyBy(({ n }) => n % 7)
          .process(new EveryTenSeconds(fired))
          .setParallelism(3)
          .sinkTo(sortingSink([]))
          .setParallelism(3);
      });
      await slots.deploy(program);
      // Both have come to second 94 and wait there: event time is at 91, and nine windows are over for seven keys.
      await until('the timers that are due', () => fired.size === 9 * 7, { timeoutMs: 30_000, everyMs: 5 });
      expect([...fired].every((one) => Number(one.split('@')[1]) < 91_000)).toBe(true);
      valve.open();
      await slots.ended();
      expect(fired.size).toBe(20 * 7);
    },
  );
});
