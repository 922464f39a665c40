import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import { asAttemptId, asJobId } from '../kernel/ids.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { SlotCluster, TEST_JOB } from './testing/slot-cluster.ts';

const clusters: SlotCluster[] = [];

async function cluster(slots: number, options: Parameters<SlotCluster['addSlots']>[1] = {}): Promise<SlotCluster> {
  const made = new SlotCluster();
  clusters.push(made);
  await made.addSlots(slots, options);
  return made;
}

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

const endless = () => rangeSource([Number.MAX_SAFE_INTEGER], new Valve(), { endless: true });

test('a function that throws fails its task with the operator, its place and the record; the consumer names the producer', async () => {
  const slots = await cluster(2);
  const sink = new GatedSink<unknown>();
  const program = await slots.program((env) => {
    env
      .fromSource(endless())
      .map(({ n }: RangeRecord) => ({ n, text: 'x'.repeat(10_000) }))
      .name('Lengthen')
      .map((value) => {
        if (value.n === 5) throw new RangeError('five is too much');
        return value;
      })
      .name('Check')
      .setParallelism(1)
      .keyBy(({ n }) => n)
      .reduce((a) => a)
      .setParallelism(2)
      .sinkTo(sink.sink())
      .setParallelism(2);
  });
  await slots.deploy(program);
  const reports = await slots.ended();
  const source = reports.find(({ vertexId }) => vertexId === program.graph.vertices[0]?.id);
  expect(source).toMatchObject({ state: 'FAILED', error: { code: 'USER_CODE' } });
  const message = source?.error?.message ?? '';
  expect(message).toContain('operator "Check" (3 of 3 in Source: Range -> Lengthen -> Check (1/1))');
  expect(message).toContain('RangeError: five is too much');
  expect(message).toContain('n: 5');
  expect(message.length).toBeLessThan(1_000);
  expect(source?.error?.stack).toContain('slot-runtime-failures.test.ts');
  const consumers = reports.filter((report) => report !== source);
  expect(consumers.length).toBe(2);
  for (const consumer of consumers) {
    expect(consumer).toMatchObject({ state: 'FAILED', error: { code: 'UNAVAILABLE' } });
    expect(consumer.error?.message).toContain('five is too much');
  }
  expect(sink.closed).toBe(2);
});

test.each([
  ['an async map', (value: unknown) => Promise.resolve(value), 'returned a promise'],
  ['a map that makes what cannot be sent', () => ({ fn: () => 1 }), 'a function cannot be sent between subtasks'],
])('%s is a clear error', async (_name, fn, expected) => {
  const slots = await cluster(1);
  const program = await slots.program((env) => {
    env
      .fromSource(endless())
      .map(fn as (value: RangeRecord) => unknown)
      .rebalance()
      .sinkTo(new GatedSink().sink())
      .setParallelism(1);
  });
  await slots.deploy(program);
  const reports = await slots.ended();
  expect(reports.map(({ error }) => error?.message).join()).toContain(expected);
});

test('a program that does not load fails its tasks with PROGRAM', async () => {
  const slots = await cluster(1);
  const program = await slots.program((env) => {
    env.fromSource(endless()).sinkTo(new GatedSink().sink());
  });
  const graph = { ...program.graph, bundle: { kind: 'inline', programId: 'gone' } as const };
  await slots.deploy({ graph, plan: { ...program.plan, graph } });
  const reports = await slots.ended();
  expect(reports.map(({ state, error }) => [state, error?.code])).toEqual([['FAILED', 'PROGRAM']]);
});

test('a slot that goes away fails the consumers in other slots quickly', async () => {
  const slots = await cluster(2);
  const sink = new GatedSink<unknown>();
  const program = await slots.program((env) => {
    env
      .fromSource(endless())
      .rebalance()
      .map((x) => x)
      .setParallelism(2)
      .sinkTo(sink.sink())
      .setParallelism(2);
  });
  await slots.deploy(program);
  await slots.running();
  await until('records to flow', () => sink.written.length > 0);
  const [first, second] = slots.runtimes;
  const startedMs = performance.now();
  await first?.close();
  await until('the other slot to fail', () => second?.attempts().every(({ state }) => state === 'FAILED'));
  expect(performance.now() - startedMs).toBeLessThan(20_000);
  // Nothing of their own went wrong: the slot is as good as after a cancellation.
  for (const attempt of second?.attempts() ?? []) {
    expect(attempt).toMatchObject({ error: { code: 'UNAVAILABLE' }, peerLost: true });
  }
});

test('cancelled in the middle of everything, tasks end CANCELED and leave no socket, timer or open writer', async () => {
  const slots = await cluster(2);
  await until('the servers to be all there is', () => slots.runtimes.length === 2);
  const before = resources();
  for (const stage of ['submitted', 'running', 'backpressured', 'checkpointing'] as const) {
    const sink = new GatedSink<unknown>(stage === 'backpressured' || stage === 'checkpointing' ? 3 : undefined);
    const program = await slots.program((env) => {
      env.enableCheckpointing(60_000);
      env
        .fromSource(rangeSource([1e9, 1e9]))
        .setParallelism(2)
        .flatMap(({ n }: RangeRecord) => [n, n + 1])
        .setParallelism(2)
        .keyBy((n) => n % 100)
        .reduce((a, b) => a + b)
        .setParallelism(2)
        .sinkTo(sink.sink())
        .setParallelism(2);
    });
    await slots.deploy(program);
    if (stage !== 'submitted') await slots.running();
    if (stage === 'backpressured' || stage === 'checkpointing') {
      await until('backpressure', () => slots.reports().some(({ io }) => io.backPressuredMs > 20));
    }
    if (stage === 'checkpointing') slots.trigger(1);
    slots.cancelAll();
    const reports = await slots.ended();
    expect(
      reports.map(({ state }) => state),
      stage,
    ).toEqual(reports.map(() => 'CANCELED'));
    expect(sink.closed, stage).toBe(sink.opened);
    const after = slots.history.length;
    for (let i = 0; i < 100; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(slots.history.length, stage).toBe(after);
  }
  await slots.close();
  await until('every socket and timer to be gone', () => resources() <= before - 2, { timeoutMs: 30_000 });
});

/** Sockets, servers and timers of this process. */
function resources(): number {
  const info = (process as unknown as { getActiveResourcesInfo(): string[] }).getActiveResourcesInfo();
  return info.filter((name) => /TCP|Timeout|Immediate/.test(name)).length;
}

test('code that never opens or never closes delays an end only up to the bound', async () => {
  const slots = await cluster(1, { subtask: { closeTimeoutMs: 50 } });
  for (const hang of ['hangOnOpen', 'hangOnClose'] as const) {
    const sink = new GatedSink<unknown>();
    sink[hang] = true;
    const program = await slots.program((env) => {
      env.fromSource(endless()).sinkTo(sink.sink());
    });
    await slots.deploy(program);
    await until('the sink to open', () => sink.opened > 0);
    slots.cancelAll();
    expect((await slots.ended()).map(({ state }) => state)).toEqual(['CANCELED']);
  }
});

test('an operator that never opens does not keep the others of its task from being closed', async () => {
  const slots = await cluster(1, { subtask: { closeTimeoutMs: 50 } });
  const [stuck, fine] = [new GatedSink<unknown>(), new GatedSink<unknown>()];
  stuck.hangOnOpen = true;
  const program = await slots.program((env) => {
    const stream = env.fromSource(endless());
    stream.sinkTo(stuck.sink('stuck'));
    stream.sinkTo(fine.sink('fine'));
  });
  await slots.deploy(program);
  await until('both to begin', () => stuck.opened + fine.opened === 2);
  slots.cancelAll();
  await slots.ended();
  expect([stuck.closed, fine.closed]).toEqual([0, 1]);
});

test('a newer deployment ends what an older one left; an older one and another job are refused; a repeated one changes nothing', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<unknown>();
  const program = await slots.program((env) => {
    env.fromSource(endless()).sinkTo(sink.sink());
  });
  const older = slots.slotDeployments(program)[0];
  const runtime = slots.runtimes[0];
  if (older === undefined || runtime === undefined) throw new Error('one slot');
  await runtime.submit(older);
  await until('the older one to run', () => runtime.attempts().some(({ state }) => state === 'RUNNING'));
  const newer = slots.slotDeployments(program)[0];
  if (newer === undefined) throw new Error('one slot');
  await runtime.submit(newer);
  const lastOfOlder = slots.history.findLast(({ deployment }) => deployment === older.deployment);
  expect(lastOfOlder?.state).toBe('CANCELED');
  expect(sink.closed).toBe(1);
  await runtime.submit(newer);
  expect(runtime.attempts().map(({ attemptId }) => attemptId)).toEqual(newer.tasks.map(({ attemptId }) => attemptId));
  await expect(runtime.submit(older)).rejects.toMatchObject({ code: 'CONFLICT' });
  await expect(runtime.submit({ ...newer, jobId: asJobId('6'.repeat(32)) })).rejects.toMatchObject({
    code: 'CONFLICT',
  });
  const nonsense = {
    ...newer,
    tasks: newer.tasks.map((task) => ({ ...task, attemptId: asAttemptId('a'.repeat(32)), subtaskIndex: 99 })),
  };
  await expect(runtime.submit(nonsense)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  expect(runtime.attempts().length).toBe(1);
  expect(newer.jobId).toBe(TEST_JOB);
});

test('one record that becomes a million is emitted as fast as it is consumed, and not held in memory', async () => {
  const slots = await cluster(2);
  const sink = new GatedSink<number>(0);
  let made = 0;
  const program = await slots.program((env) => {
    env
      .fromSource(rangeSource([1]))
      .flatMap(function* () {
        while (made < 1_000_000) yield made++;
      })
      .setParallelism(1)
      .rebalance()
      .map((n) => n)
      .setParallelism(2)
      .sinkTo(sink.sink())
      .setParallelism(2);
  });
  await slots.deploy(program);
  await slots.running();
  await until('everything to be full', () => slots.reports().some(({ io }) => io.backPressuredMs > 100));
  // Two channels with 4 credits and 4 queued batches of at most 1,024 each, and one open batch.
  expect(made).toBeLessThan(2 * 10 * 1_024);
  // More than all that is held, or it would depend on which consumer takes how much whether there is room again.
  sink.allow(20_000);
  await until('more to be written', () => sink.written.length >= 20_000);
  expect(made - sink.written.length).toBeLessThan(2 * 10 * 1_024);
});
