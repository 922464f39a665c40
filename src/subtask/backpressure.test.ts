import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { IoMetrics } from '../contracts/task.ts';
import { DEFAULT_EXCHANGE_OPTIONS } from '../exchange/exchange-options.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

let slots: SlotCluster | undefined;
afterEach(() => slots?.close());

const PRODUCED = 1_000_000;
const BATCH = 10;
const { credits, queuedMessages } = DEFAULT_EXCHANGE_OPTIONS;
/** What a channel holds: its queue, what its credits allow, a batch in the making, and one in the consumer's hands. */
const CHANNEL_RECORDS = BATCH * (credits + queuedMessages + 2);
/** What a source emits in one poll at most, after its outputs have become full. */
const POLL_RECORDS = 128;

/** Source -> Map -> Sink, each a task of its own in two slots, so that there are channels within and between slots. */
async function pipeline(sink: GatedSink<unknown>, valve = new Valve()) {
  slots = new SlotCluster();
  await slots.addSlots(2, { exchange: { batchRecords: BATCH } });
  const program = await slots.program((env) => {
    env.setParallelism(2);
    env
      .fromSource(rangeSource([PRODUCED, PRODUCED], valve), 'numbers')
      .rebalance()
      .map((value) => value)
      .rebalance()
      .sinkTo(sink.sink());
  });
  await slots.deploy(program);
  await slots.running();
  const running = slots;
  const byVertex = () =>
    program.graph.vertices.map(({ id }) =>
      running
        .reports()
        .filter(({ vertexId }) => vertexId === id)
        .map(({ io }) => io),
    );
  return { byVertex };
}

const sum = (
  tasks: readonly IoMetrics[],
  field: 'readRecords' | 'writeRecords' | 'backPressuredMs' | 'idleMs' | 'busyMs',
) => tasks.reduce((total, io) => total + io[field], 0);

/** Waits until the tasks have spent nine tenths of a while in that state, counted from now on. */
async function untilMostly(tasks: () => readonly IoMetrics[], state: 'backPressuredMs' | 'idleMs'): Promise<void> {
  const before = tasks();
  const spent = (field: 'backPressuredMs' | 'idleMs' | 'busyMs') => sum(tasks(), field) - sum(before, field);
  await until(
    `tasks to be mostly in ${state}`,
    () => spent(state) > 200 && spent(state) > 0.9 * (spent('backPressuredMs') + spent('idleMs') + spent('busyMs')),
    { timeoutMs: 30_000 },
  );
}

test('a sink that stands still stops the sources within the bound, and every task behind it says why it waits', async () => {
  const sink = new GatedSink<unknown>(5);
  const { byVertex } = await pipeline(sink);
  let emitted = -1;
  // Stands still: two looks in a row see the same.
  await until('the source to stop', () => {
    const now = sum(byVertex()[0] ?? [], 'writeRecords');
    const same = now === emitted && sink.written.length >= 5;
    emitted = now;
    return same && now > 0;
  });
  await untilMostly(() => byVertex().flat(), 'backPressuredMs');
  const [sources, maps] = byVertex();
  // Four channels on each edge.
  const bound = 2 * 4 * CHANNEL_RECORDS + 2 * POLL_RECORDS + sink.written.length;
  expect(sum(sources ?? [], 'writeRecords')).toBeLessThanOrEqual(bound);
  expect(sum(maps ?? [], 'readRecords')).toBeLessThanOrEqual(sum(sources ?? [], 'writeRecords'));
  const stoppedAt = sum(sources ?? [], 'writeRecords');
  sink.allow(1_000);
  await until('records to flow again', () => sum(byVertex()[0] ?? [], 'writeRecords') > stoppedAt);
});

test('a source without input leaves all tasks idle', async () => {
  const sink = new GatedSink<unknown>();
  const { byVertex } = await pipeline(sink, new Valve(10));
  await until('what there is to arrive', () => sink.written.length === 20);
  await untilMostly(() => byVertex().flat(), 'idleMs');
});
