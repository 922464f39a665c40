import { afterEach, expect, test } from 'vitest';
import { until } from '../../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../../api/environment.ts';
import {
  KeyedCoProcessFunction,
  type KeyedContext,
  KeyedProcessFunction,
  type OnTimerContext,
  OutputTag,
} from '../../api/process-function.ts';
import type { Collector } from '../../api/functions.ts';
import { WatermarkStrategy } from '../../api/watermark-strategy.ts';
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

/** Record n happened at second n, and is up to 3 s out of order between splits. */
const byN = WatermarkStrategy.forBoundedOutOfOrderness<RangeRecord>(3_000).withTimestampAssigner(({ n }) => n * 1_000);

/** Counts the records of a key in each ten seconds, by timers. */
class CountPerTenSeconds extends KeyedProcessFunction<number, RangeRecord, string> {
  constructor(private readonly onFired: () => void = () => undefined) {
    super();
  }

  processElement(_value: RangeRecord, ctx: KeyedContext<number>): void {
    const timestampMs = ctx.timestamp() as number;
    const end = Math.floor(timestampMs / 10_000) * 10_000 + 9_999;
    const counts = ctx.getState<Record<string, number>>({ name: 'counts', defaultValue: {} });
    const held = counts.value() as Record<string, number>;
    held[end] = (held[end] ?? 0) + 1;
    counts.update(held);
    ctx.timerService().registerEventTimeTimer(end);
  }

  override onTimer(timestampMs: number, ctx: OnTimerContext<number>, out: Collector<string>): void {
    const counts = ctx.getState<Record<string, number>>({ name: 'counts', defaultValue: {} });
    const held = counts.value() as Record<string, number>;
    this.onFired();
    out.collect(`${ctx.getCurrentKey()}@${timestampMs}=${held[timestampMs]} t=${ctx.timestamp()} ${ctx.timeDomain()}`);
    delete held[timestampMs];
    counts.update(held);
  }
}

function expected(ends: readonly number[], keys: number): string[] {
  const counts = new Map<string, number>();
  for (const end of ends) {
    for (let n = 0; n < end; n++) {
      const due = Math.floor((n * 1_000) / 10_000) * 10_000 + 9_999;
      const name = `${n % keys}@${due}`;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  return [...counts].map(([name, count]) => `${name}=${count} t=${name.split('@')[1]} EVENT_TIME`).sort();
}

test('timers fire by watermark, and all that are left at the end of the data', async () => {
  const slots = await cluster(3);
  const sink = new GatedSink<string>();
  const program = await slots.program((env) => {
    env.setParallelism(2);
    env
      .fromSource(rangeSource([500, 300, 250]), byN, 'numbers')
      // One split each: within a subtask the records are in order, whenever watermarks are made.
      .setParallelism(3)
      .map((value) => value)
      .setParallelism(3)
      .keyBy(({ n }) => n % 7)
      .process(new CountPerTenSeconds())
      .flatMap((text) => [text])
      .sinkTo(sink.sink());
  });
  await slots.deploy(program);
  await slots.ended();
  expect(slots.reports().map(({ state, error }) => error?.message ?? state)).not.toContain('FAILED');
  expect([...sink.written].sort()).toEqual(expected([500, 300, 250], 7));
});

test('a job restored with another parallelism fires every timer once, with the state of its key', async () => {
  const [store, valve] = [new TransactionalStore<string>(), new Valve(95)];
  let fired = 0;
  const main = (parallelism: number) => (env: StreamExecutionEnvironment) => {
    env.enableCheckpointing(60_000);
    env.setAutoWatermarkInterval(2);
    env
      .fromSource(rangeSource([200, 160, 120], valve), byN, 'numbers')
      .setParallelism(3)
      .keyBy(({ n }) => n % 7)
      .process(new CountPerTenSeconds(() => fired++))
      .setParallelism(parallelism)
      .sinkTo(store.sink())
      .setParallelism(parallelism);
  };
  const before = await cluster(3);
  const first = await before.program(main(2));
  await before.deploy(first);
  await before.running();
  // Up to the valve event time reaches 91 s: nine windows of every key have passed, one of every key waits.
  await until('the timers that are due before the valve', () => fired === 9 * 7, { timeoutMs: 20_000 });
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
  expect([...store.committed].sort()).toEqual(expected([200, 160, 120], 7));
});

const everyTenth = new OutputTag<number>('every tenth');

/** Counts both inputs of a key, and says so at the end of the data. */
class Meet extends KeyedCoProcessFunction<number, RangeRecord, number, string> {
  processElement1(_value: RangeRecord, ctx: KeyedContext<number>): void {
    this.count('first', ctx);
  }

  processElement2(value: number, ctx: KeyedContext<number>): void {
    if (value % 10 === 0) ctx.output(everyTenth, value);
    this.count('second', ctx);
  }

  override onTimer(_timestampMs: number, ctx: OnTimerContext<number>, out: Collector<string>): void {
    const [first, second] = ['first', 'second'].map((name) => ctx.getState<number>({ name }).value());
    out.collect(`${ctx.getCurrentKey()}: ${first}, ${second}`);
  }

  private count(name: string, ctx: KeyedContext<number>): void {
    const state = ctx.getState<number>({ name, defaultValue: 0 });
    state.update((state.value() as number) + 1);
    ctx.timerService().registerEventTimeTimer(Number.MAX_SAFE_INTEGER);
  }
}

test('two inputs share the state and timers of a key; side outputs go their own way', async () => {
  const slots = await cluster(2);
  const [sink, side] = [new GatedSink<string>(), new GatedSink<number>()];
  const program = await slots.program((env) => {
    env.setParallelism(2);
    const first = env.fromSource(rangeSource([100, 100]));
    const second = env.fromSource(rangeSource([60])).map(({ n }) => n);
    const met = first
      .connect(second)
      .keyBy(
        ({ n }) => n % 4,
        (n) => n % 4,
      )
      .process(new Meet());
    met.sinkTo(sink.sink('main'));
    met.getSideOutput(everyTenth).sinkTo(side.sink('side'));
  });
  await slots.deploy(program);
  await slots.ended();
  expect([...sink.written].sort()).toEqual(['0: 50, 15', '1: 50, 15', '2: 50, 15', '3: 50, 15']);
  expect([...side.written].sort((a, b) => a - b)).toEqual([0, 10, 20, 30, 40, 50]);
});

test('a silent source holds event time up, unless it may be idle', async () => {
  const run = async (idleMs: number | undefined) => {
    const slots = await cluster(2);
    const sink = new GatedSink<string>();
    const strategy = idleMs === undefined ? byN : byN.withIdleness(idleMs);
    const program = await slots.program((env) => {
      env.setAutoWatermarkInterval(2);
      const silent = env.fromSource(rangeSource([100], new Valve(0), { endless: true }), strategy).setParallelism(1);
      const busy = env.fromSource(rangeSource([100], new Valve(), { endless: true }), byN).setParallelism(1);
      silent
        .union(busy)
        .keyBy(({ n }) => n % 3)
        .process(new CountPerTenSeconds())
        .setParallelism(2)
        .sinkTo(sink.sink())
        .setParallelism(2);
    });
    await slots.deploy(program);
    await slots.running();
    return { slots, sink };
  };
  const held = await run(undefined);
  const idle = await run(10);
  // Of 100 s all ten-second windows but the last have passed, by 3 s.
  await until('timers of all keys', () => idle.sink.written.length === 3 * 9);
  expect(held.sink.written).toEqual([]);
});

test('processing-time timers fire by the clock while no record comes', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<string>();
  const program = await slots.program((env) => {
    env
      .fromSource(rangeSource([5], new Valve(), { endless: true }))
      .setParallelism(1)
      .keyBy(({ n }) => n)
      .process<string>({
        processElement: (_value, ctx) => {
          const timers = ctx.timerService();
          timers.registerProcessingTimeTimer(timers.currentProcessingTime() + 20);
        },
        onTimer: (_timestampMs, ctx, out) =>
          out.collect(`${ctx.getCurrentKey()} ${ctx.timeDomain()} ${ctx.timestamp()}`),
      })
      .setParallelism(1)
      .sinkTo(sink.sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  await until('all timers', () => sink.written.length === 5);
  expect([...sink.written].sort()).toEqual([0, 1, 2, 3, 4].map((key) => `${key} PROCESSING_TIME undefined`));
});

test('an error in a process function names its operator and the record; one further down names its own', async () => {
  const failing = async (onTimer: boolean, downstream: boolean) => {
    const slots = await cluster(1);
    const program = await slots.program((env) => {
      env
        .fromSource(rangeSource([3]), byN)
        .setParallelism(1)
        .keyBy(({ n }) => n)
        .process<number>({
          processElement: (value, ctx, out) => {
            if (!onTimer && !downstream) throw new Error('no');
            ctx.timerService().registerEventTimeTimer(5);
            // Swallowing what the chain throws must not turn a failure into a loss.
            try {
              out.collect(value.n);
            } catch {}
          },
          onTimer: () => {
            throw new Error('too late');
          },
        })
        .setParallelism(1)
        .name('careful')
        .map((n) => {
          if (downstream) throw new Error('down there');
          return n;
        })
        .setParallelism(1)
        .sinkTo(new GatedSink<number>().sink())
        .setParallelism(1);
    });
    await slots.deploy(program);
    await slots.ended();
    return slots.reports().find(({ state }) => state === 'FAILED')?.error?.message ?? '';
  };
  expect(await failing(false, false)).toMatch(/"careful".* threw Error: no; record: .*n: 0/);
  expect(await failing(true, false)).toMatch(/"careful".* threw Error: too late; record: .*timer: 5/);
  expect(await failing(false, true)).toMatch(/"Map".* threw Error: down there/);
});
