import { afterEach, expect, test } from 'vitest';
import { countReachable } from '../../test-support/count-reachable.ts';
import { rangeSource, Valve } from '../subtask/testing/range-source.ts';
import { TransactionalStore } from '../subtask/testing/transactional-store.ts';
import { InProcessCluster } from './testing/in-process-cluster.ts';

const clusters: InProcessCluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.splice(0).map((cluster) => cluster.close()));
});

/** Thousands: MILLRACE_PROPERTY_RUNS=5000. */
const JOBS = Number(process.env.MILLRACE_PROPERTY_RUNS ?? 40);
/** Ended jobs that the cluster remembers; more than these are forgotten. */
const REMEMBERED = 10;

test('a master and a worker through which many jobs went keep no more of them than they were told to', {
  timeout: 600_000,
}, async () => {
  const at = await InProcessCluster.start(2);
  clusters.push(at);
  const store = new TransactionalStore<number>();
  const runOne = async () => {
    const jobId = await at.run((env) => {
      env.setParallelism(1);
      env.enableCheckpointing(1_000);
      env
        .fromSource(rangeSource([3], new Valve(3)))
        .map(({ n }) => n)
        .sinkTo(store.sink());
    });
    expect(await at.ended(jobId)).toBe('FINISHED');
  };
  const settled = async () => {
    // Results beyond those remembered are forgotten in the background.
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  // The stores are models of other processes, and programs are the test's own.
  const others = [at.etcd, at.objects, at.programs, store];
  const kept = () => ({ ...at.inner(), count: countReachable(Object.values(at.inner()), others) });
  for (let i = 0; i < REMEMBERED + 10; i++) await runOne();
  await settled();
  const before = kept().count;
  for (let i = 0; i < JOBS; i++) await runOne();
  await settled();
  const perJob = (kept().count - before) / JOBS;
  // Ids of jobs that ended and of slots that were given back are remembered, some thousand of them: 2 for each job. A
  // listener that nobody removes is as much again; anything of a job itself would be dozens of objects.
  expect(perJob).toBeLessThan(2.5);
});
