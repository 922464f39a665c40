import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { JobId } from '../kernel/ids.ts';
import { rangeSource, Valve } from '../subtask/testing/range-source.ts';
import { TransactionalStore } from '../subtask/testing/transactional-store.ts';
import { InProcessCluster } from './testing/in-process-cluster.ts';

/** Leaders that are replaced under running jobs, over the whole control plane and the real engine. */
const clusters: InProcessCluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((cluster) => cluster.close()));
});

async function cluster(slots = 4): Promise<InProcessCluster> {
  const made = await InProcessCluster.start(slots);
  clusters.push(made);
  return made;
}

interface World {
  readonly store: TransactionalStore<number>;
  readonly valve: Valve;
  readonly endless: boolean;
}

const copying =
  ({ store, valve, endless }: World, intervalMs = 20) =>
  (env: StreamExecutionEnvironment) => {
    env.setParallelism(2);
    env.enableCheckpointing(intervalMs);
    env.setBufferTimeout(1);
    env
      .fromSource(rangeSource([100_000, 100_000], valve, { endless }))
      .map(({ n }) => n)
      .keyBy((n) => n)
      .reduce((a, b) => a + b)
      .sinkTo(store.sink());
  };

const world = (limit: number, endless = true): World => ({
  store: new TransactionalStore(),
  valve: new Valve(limit),
  endless,
});

const attempts = async (at: InProcessCluster, jobId: JobId) => {
  const job = await at.leading(() => at.dispatcher.requestJob(jobId));
  return job.vertices.flatMap(({ subtasks }) => subtasks.map(({ attemptId }) => attemptId));
};

test('leaders come and go under a running job: the same attempts run on, and every record is committed once', async () => {
  const [at, w] = [await cluster(), world(50)];
  const jobId = await at.run(copying(w));
  await at.running(jobId);
  const before = await attempts(at, jobId);
  for (let i = 1; i <= 5; i++) {
    at.replaceLeader();
    w.valve.open(50 + 50 * i);
    await until('what came since to be committed', () => w.store.committed.length === 2 * (50 + 50 * i));
    await at.running(jobId);
    expect(await attempts(at, jobId)).toEqual(before);
    const job = await at.dispatcher.requestJob(jobId);
    expect(job).toMatchObject({ status: 'RUNNING', restarts: 0, checkpoints: { counts: { restored: 0 } } });
    expect(job.exceptions.history).toEqual([]);
  }
  await at.leading(() => at.dispatcher.cancelJob(jobId));
  expect(await at.ended(jobId)).toBe('CANCELED');
  await until('all slots to be free', async () => (await at.dispatcher.clusterOverview()).slotsFree === 4);
});

test('a leader that dies between pointer and notice: the next one gives the notice, and the job ends exactly', async () => {
  const [at, w] = [await cluster(), world(40, false)];
  at.lost.add('notifyCheckpointComplete');
  const jobId = await at.run(copying(w));
  await at.running(jobId);
  await until('a checkpoint to complete without a notice', async () => {
    const job = await at.dispatcher.requestJob(jobId);
    return job.checkpoints.counts.completed > 1;
  });
  expect(w.store.committed).toEqual([]);
  const before = await attempts(at, jobId);
  at.replaceLeader();
  at.lost.clear();
  await until('the commit', () => w.store.committed.length > 0);
  expect(await attempts(at, jobId)).toEqual(before);
  await at.leading(() => at.dispatcher.cancelJob(jobId));
  await at.ended(jobId);
});

test('a leader that shuts down leaves everything where it is: the next one runs all jobs on', async () => {
  const [at, w] = [await cluster(), world(40)];
  const jobId = await at.run(copying(w));
  await at.running(jobId);
  await until('output', () => w.store.committed.length === 80);
  const keys = () =>
    at.etcd
      .list('')
      .entries.map(({ key }) => key)
      .filter((key) => !/checkpoint|counter/.test(key));
  const stored = keys();
  const objects = async () => {
    const found: string[] = [];
    for await (const { key } of at.objects.list('')) found.push(key);
    return found.filter((key) => !key.includes('checkpoint'));
  };
  const before = await objects();
  at.replaceLeader(); // The former closes its term in an orderly way.
  await at.running(jobId);
  expect(keys()).toEqual(stored);
  expect(await objects()).toEqual(before);
  expect(await at.status(jobId)).toBe('RUNNING');
  await at.leading(() => at.dispatcher.cancelJob(jobId));
  await at.ended(jobId);
});
