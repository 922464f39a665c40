import { expect, test } from 'vitest';
import { emptyMetadata } from '../checkpoint/checkpoint.fixture.ts';
import { CorruptError } from '../kernel/errors.ts';
import { JobBench } from './job-bench.fixture.ts';

/** Brings a job into a state, and says which. */
const STATES: readonly { readonly name: string; readonly bring: () => Promise<JobBench> }[] = [
  {
    name: 'INITIALIZING: reading its checkpoint',
    bring: async () => {
      const bench = new JobBench();
      bench.start();
      return bench;
    },
  },
  {
    name: 'RESTARTING: its checkpoint cannot be read',
    bring: async () => {
      const bench = new JobBench();
      bench.stores.seed(emptyMetadata(1, '1-1'));
      bench.stores.unreadable.set(1, new CorruptError('damaged'));
      return bench.started();
    },
  },
  { name: 'CREATED: waiting for slots', bring: () => new JobBench({}, 0).started() },
  {
    name: 'RUNNING: its tasks are being deployed',
    bring: async () => {
      const bench = new JobBench();
      bench.worker(0).starts = false;
      return bench.started();
    },
  },
  { name: 'RUNNING', bring: () => new JobBench().started() },
  {
    name: 'RUNNING: a checkpoint in progress',
    bring: async () => {
      const bench = await new JobBench().started();
      bench.worker(0).acks = false;
      await bench.pass(1_000);
      return bench;
    },
  },
  {
    name: 'RESTARTING: its tasks are ending',
    bring: async () => {
      const bench = await new JobBench({ parallelism: 2 }, 2).started();
      bench.worker(1).answersCancel = false;
      bench.failTask(bench.worker(0));
      await bench.pass(1);
      return bench;
    },
  },
  {
    name: 'RESTARTING: waiting before the next try',
    bring: async () => {
      const bench = await new JobBench().started();
      bench.failTask(bench.worker(0));
      await bench.pass(1);
      return bench;
    },
  },
  {
    name: 'FAILING',
    bring: async () => {
      const bench = await new JobBench({ parallelism: 2, restartStrategy: { type: 'none' } }, 2).started();
      bench.worker(1).answersCancel = false;
      bench.failTask(bench.worker(0));
      await bench.pass(1);
      return bench;
    },
  },
];

test.each(STATES)('a job is cancelled in $name', async ({ name, bring }) => {
  const bench = await bring();
  expect(bench.status).toBe(name.split(':')[0]);
  const before = bench.deployments();
  bench.master.cancel();
  bench.master.cancel();
  await bench.pass(10_000);
  expect(bench.outcome).toMatchObject({ status: 'CANCELED', error: undefined });
  expect(bench.cluster.liveDeployments().size).toBe(0);
  for (const worker of bench.cluster.workers) expect(worker.allocations.size).toBe(0);
  // Terminal is terminal: slots, reports and failures that come later start nothing.
  bench.cluster.worker(4);
  for (const worker of bench.cluster.workers) bench.cluster.heartbeat(worker);
  bench.master.cancel();
  await bench.pass(120_000);
  expect(bench.deployments().length).toBeLessThanOrEqual(Math.max(1, before.length));
  expect(bench.status).toBe('CANCELED');
  await bench.master.close();
  expect(bench.clock.pending).toBe(0);
});

test('cancelling waits for tasks to end, and takes the slot of one that does not', async () => {
  const bench = await new JobBench().started();
  bench.worker(0).answersCancel = false;
  bench.master.cancel();
  await bench.pass(2_999);
  expect(bench.status).toBe('CANCELLING');
  expect(bench.outcome).toBeUndefined();
  await bench.pass(1);
  expect(bench.outcome?.status).toBe('CANCELED');
});

test('a job that has finished stays FINISHED when it is cancelled afterwards', async () => {
  const bench = await new JobBench().started();
  bench.worker(0).endOfData();
  await bench.pass(100);
  bench.master.cancel();
  await bench.pass(100);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.status).toBe('FINISHED');
});

test('the worker of a cancelled job dies before it has answered: the job is CANCELED all the same', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.worker(1).answersCancel = false;
  bench.master.cancel();
  await bench.pass(10);
  expect(bench.outcome).toBeUndefined();
  bench.cluster.kill(bench.worker(1));
  await bench.pass(0);
  expect(bench.outcome?.status).toBe('CANCELED');
});
