import { expect, test } from 'vitest';
import type { CheckpointOperation, TriggerId } from '../contracts/operations.ts';
import { present } from '../kernel/assert.ts';
import { JobBench } from './job-bench.fixture.ts';

const SLOW = { type: 'fixed-delay', attempts: 10, delayMs: 5_000 } as const;

/** A job of one region on two workers with a third to spare; what runs on the first has lost the second's tasks. */
async function peerLost(bench = new JobBench({ parallelism: 2, restartStrategy: SLOW }, 3)): Promise<JobBench> {
  await bench.started();
  await bench.pass(1_000);
  bench.calls();
  const consumer = present(bench.worker(0).live()[1], 'a task that reads');
  bench.worker(0).losePeer(consumer);
  await bench.pass(0);
  expect(bench.status).toBe('RESTARTING');
  return bench;
}

test('what only lost another task leaves its slot to the next attempt: nothing is given back that survived', async () => {
  const bench = await peerLost();
  const [slot] = bench.worker(0).allocations.keys();
  bench.cluster.kill(bench.worker(1));
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
  expect(bench.calls()).toEqual(['tm-1 cancel', 'tm-1 submit 1-2', 'tm-2 cancel', 'tm-3 submit 1-2']);
  expect([...bench.worker(0).allocations.keys()]).toEqual([slot]);
  expect(bench.cluster.released.filter((reason) => reason === 'the job restarts')).toEqual([]);
  expect(bench.cluster.requests).toEqual([2, 1]);
});

test('tasks notice the death of a worker before it is proved: it counts as one failure, and nobody waits for a back-off', async () => {
  const bench = await peerLost();
  bench.cluster.kill(bench.worker(1));
  await bench.pass(0);
  const { status, restarts, exceptions } = bench.master.details();
  expect({ status, restarts }).toEqual({ status: 'RUNNING', restarts: 1 });
  expect(exceptions.root?.message).toContain('worker tm-2 is lost');
  expect(exceptions.history.map(({ message }) => message)).toContainEqual('lost producer');
});

test('the death of a worker that is proved during the back-off ends it', async () => {
  const bench = await peerLost();
  expect(bench.master.details().waitingFor).toBe('restarting in 5000 ms');
  await bench.pass(500);
  bench.cluster.kill(bench.worker(1));
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
});

test('a connection that breaks between two that live waits as the strategy says', async () => {
  const bench = await peerLost();
  await bench.pass(4_999);
  expect(bench.status).toBe('RESTARTING');
  await bench.pass(1);
  expect(bench.status).toBe('RUNNING');
  // Both slots are the same: nothing was asked for.
  expect(bench.cluster.requests).toEqual([2]);
});

test('a worker that dies with a task that failed by itself: that slot is given back, and the strategy waits', async () => {
  const bench = new JobBench({ parallelism: 2, restartStrategy: SLOW }, 3);
  await bench.started();
  await bench.pass(1_000);
  bench.worker(1).answersCancel = false;
  bench.worker(0).losePeer(present(bench.worker(0).live()[1], 'a task that reads'));
  bench.failTask(bench.worker(1));
  await bench.pass(0);
  bench.cluster.kill(bench.worker(1));
  await bench.pass(4_999);
  expect(bench.status).toBe('RESTARTING');
  await bench.pass(1);
  expect(bench.status).toBe('RUNNING');
});

test('the second worker lost within seconds waits as the strategy says: the job may be what kills them', async () => {
  const bench = await peerLost();
  bench.cluster.kill(bench.worker(1));
  bench.cluster.worker(1);
  await bench.pass(3_000);
  expect(bench.status).toBe('RUNNING');
  bench.cluster.kill(bench.worker(2));
  await bench.pass(4_999);
  expect(bench.status).toBe('RESTARTING');
  await bench.pass(1);
  expect(bench.status).toBe('RUNNING');
});

test('regions that did not notice the death of a worker begin again with those that did', async () => {
  const bench = await peerLost(new JobBench({ parallelism: 4, partitioner: 'FORWARD', restartStrategy: SLOW }, 3, 2));
  bench.cluster.kill(bench.worker(0));
  await bench.pass(0);
  const details = bench.master.details();
  expect(details).toMatchObject({ status: 'RUNNING', restarts: 1 });
});

test('a worker lost in a stop with draining begins all regions again: those that were drained are at their end', async () => {
  for (const [stop, restarted] of [
    ['DRAIN', 4],
    ['SUSPEND', 2],
  ] as const) {
    const bench = await new JobBench({ parallelism: 2, partitioner: 'FORWARD' }, 3).started();
    await bench.pass(10);
    const drained = bench.worker(0).live();
    expect(drained).toHaveLength(2);
    bench.worker(1).acks = false;
    const operation: CheckpointOperation = {
      triggerId: 'a'.repeat(32) as TriggerId,
      jobId: bench.graph.jobId,
      startedWallMs: 0,
      request: { kind: 'SAVEPOINT', location: 'savepoints/s/', stop },
    };
    bench.master.requestCheckpoint(operation);
    await bench.pass(10);
    bench.cluster.kill(bench.worker(1));
    await bench.pass(1_000);
    const deployed = bench.cluster.workers.flatMap(({ deployments }) => deployments).slice(2);
    expect(deployed.flatMap(({ tasks }) => tasks)).toHaveLength(restarted);
    expect(
      bench
        .worker(0)
        .live()
        .some((id) => drained.includes(id)),
    ).toBe(stop === 'SUSPEND');
    expect(bench.status).toBe('RUNNING');
  }
});
