import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { AttemptReport } from '../contracts/task.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { asOperatorId } from '../kernel/ids.ts';
import { LatencyTracker } from './latency-tracker.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

const SOURCE = asOperatorId('5'.repeat(32));

let slots: SlotCluster | undefined;
afterEach(() => slots?.close());

test('a task reports how old the markers of each source were, and passes them on', async () => {
  const clock = new ManualClock();
  const forwarded: unknown[] = [];
  const tracker = new LatencyTracker({
    clock,
    source: undefined,
    forward: (marker) => forwarded.push(marker),
    wake: () => undefined,
  });
  expect(tracker.report()).toEqual([]);
  const sentWallMs = clock.wallMs();
  const marker = { markedWallMs: sentWallMs, sourceId: SOURCE, sourceSubtask: 0 };
  for (let i = 1; i <= 200; i++) {
    await clock.advance(1);
    tracker.received(marker);
  }
  expect(forwarded).toHaveLength(200);
  // The last 128: 73 to 200 milliseconds.
  expect(tracker.report()).toEqual([
    expect.objectContaining({ sourceId: SOURCE, markers: 200, min: 73, max: 200, median: 137, p99: 199 }),
  ]);
  // From a host whose clock is ahead.
  tracker.received({ ...marker, markedWallMs: clock.wallMs() + 5_000 });
  expect(tracker.report()[0]?.min).toBe(0);
});

async function track(latencyIntervalMs: number) {
  slots = new SlotCluster();
  await slots.addSlots(2);
  const sink = new GatedSink<unknown>();
  const valve = new Valve(10);
  const program = await slots.program((env) => {
    env.setLatencyTrackingInterval(latencyIntervalMs).setBufferTimeout(1);
    env
      .fromSource(rangeSource([20, 20], valve), 'numbers')
      .setParallelism(2)
      .rebalance()
      .map((value) => value)
      .setParallelism(2)
      .keyBy(({ n }) => n % 3)
      .reduce((a) => a)
      .setParallelism(2)
      .broadcast()
      .sinkTo(sink.sink())
      .setParallelism(2);
  });
  await slots.deploy(program);
  await slots.running();
  const sourceId = program.graph.vertices[0]?.operators[0]?.id;
  return { sink, valve, sourceId, running: slots };
}

const hasInputs = ({ io }: AttemptReport) => io.readBytes > 0;

test('markers reach every task over every kind of edge, also while no record comes, and bring no records', async () => {
  const { sink, valve, sourceId, running } = await track(2);
  await until('markers in every task behind the sources', () => {
    const consumers = running.reports().filter(hasInputs);
    return consumers.length === 6 && consumers.every(({ io }) => (io.latency?.[0]?.markers ?? 0) >= 5);
  });
  for (const { io } of running.reports()) {
    if (io.latency === undefined) continue;
    expect(io.latency.map((stats) => stats.sourceId)).toEqual([sourceId]);
    const [{ min, median, max }] = io.latency as [NonNullable<typeof io.latency>[number]];
    expect(0 <= min && min <= median && median <= max).toBe(true);
  }
  valve.open();
  await running.ended();
  expect(sink.written).toHaveLength(40 * 2);
});

test('without an interval there are none', async () => {
  const { valve, running } = await track(0);
  valve.open();
  const reports = await running.ended();
  expect(reports.filter(({ io }) => io.latency !== undefined)).toEqual([]);
});
