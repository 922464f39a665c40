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
  const slots = await cluster(2);
  const sink = new GatedSink<string>();
  const program = await slots.program((env) => {
    env.setParallelism(2);
    env
      .fromSource(rangeSource([500, 300, 250]), byN, 'numbers')
      .map((value) => value)
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
