import { expect, test } from 'vitest';
import type { CheckpointOperation, TriggerId } from '../contracts/operations.ts';
import { UnavailableError } from '../kernel/errors.ts';
import type { AttemptId } from '../kernel/ids.ts';
import { JobBench } from './job-bench.fixture.ts';

/** Two workers of one slot each, a job of two subtasks, one checkpoint completed. */
async function running(graph: ConstructorParameters<typeof JobBench>[0] = {}, workers = 2) {
  const bench = await new JobBench({ parallelism: 2, ...graph }, workers).started();
  await bench.pass(1_100);
  expect(bench.stores.pointers.has(1)).toBe(true);
  bench.calls();
  return bench;
}

const attempts = (bench: JobBench): AttemptId[] => bench.cluster.workers.flatMap((worker) => worker.live());

test('a new leader adopts running tasks: nothing is cancelled, deployed or restored', async () => {
  const bench = await running();
  const before = attempts(bench);
  await bench.takeOver(2);
  expect(bench.status).toBe('RUNNING');
  expect(attempts(bench)).toEqual(before);
  expect(bench.calls().filter((call) => !/ (complete|aborted) /.test(call))).toEqual([]);
  expect(bench.cluster.released).toEqual([]);
  const details = bench.master.details();
  expect(details.restarts).toBe(0);
  expect(details.checkpoints.counts.restored).toBe(0);
  expect(details.tasks.RUNNING).toBe(4);
  expect(details.exceptions.history).toEqual([]);
  expect(bench.notAdopted).toEqual([]);
});

test('an adopted job keeps its deployment; checkpoints go on with higher ids under the new leader', async () => {
  const bench = await running();
  await bench.takeOver(2);
  await bench.pass(1_100);
  expect(bench.deployments()).toEqual(['1-1']);
  // 2 was reserved to mark where the old leader's ids end.
  expect([...bench.stores.pointers.keys()]).toEqual([3]);
  expect(bench.stores.pointers.get(3)?.deployment).toBe('1-1');
});

test('the newest completed checkpoint is announced again, and what the old leader had in flight is aborted', async () => {
  const bench = await running();
  for (const worker of bench.cluster.workers) worker.acks = false;
  await bench.pass(1_000);
  expect(bench.calls()).toContain('tm-1 trigger 2');
  for (const worker of bench.cluster.workers) worker.acks = true;
  await bench.takeOver(2);
  await bench.pass(10);
  const calls = bench.calls();
  for (const worker of ['tm-1', 'tm-2']) {
    expect(calls).toContain(`${worker} complete 1`);
    expect(calls).toContain(`${worker} aborted up to 3`);
  }
  await bench.pass(1_100);
  expect(bench.stores.pointers.has(4)).toBe(true);
});

test('a notice that the old leader could not deliver is delivered by the new one: the job ends without a replay', async () => {
  const bench = await running();
  for (const worker of bench.cluster.workers) worker.loseNotices = 1_000;
  for (const worker of bench.cluster.workers) worker.endOfData();
  await bench.pass(200);
  expect(bench.outcome).toBeUndefined();
  for (const worker of bench.cluster.workers) worker.loseNotices = 0;
  await bench.takeOver(2);
  await bench.pass(1_000);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('finished tasks are accounted for; what they left stays in later checkpoints', async () => {
  const bench = await running({ partitioner: 'FORWARD' });
  const [first] = bench.cluster.workers;
  for (const attemptId of first?.live() ?? []) first?.set(attemptId, 'FINISHED');
  await bench.pass(0);
  await bench.takeOver(2);
  expect(bench.status).toBe('RUNNING');
  expect(bench.master.details().tasks).toMatchObject({ FINISHED: 2, RUNNING: 2 });
  await bench.pass(1_100);
  const kept = bench.stores.pointers.get(3);
  expect(kept?.operators[0]?.subtasks.map(({ keyed }) => keyed[0]?.handle)).toMatchObject([
    { key: 'state-1-1-0' },
    { key: 'state-3-1-1' },
  ]);
});

test('a job whose tasks have all finished is over, although the old leader died before it noted that', async () => {
  const bench = await running();
  bench.cluster.master = undefined;
  for (const worker of bench.cluster.workers) for (const id of worker.live()) worker.set(id, 'FINISHED');
  await bench.takeOver(2);
  await bench.pass(0);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('tasks that are starting are adopted too: they have all that they need', async () => {
  const bench = new JobBench({ parallelism: 2 }, 2);
  for (const worker of bench.cluster.workers) worker.starts = false;
  await bench.started();
  await bench.takeOver(2);
  expect(bench.status).toBe('RUNNING');
  expect(bench.master.details().tasks.DEPLOYING).toBe(4);
  for (const worker of bench.cluster.workers)
    for (const id of worker.live()) for (const state of ['INITIALIZING', 'RUNNING'] as const) worker.set(id, state);
  await bench.pass(1_100);
  expect(bench.deployments()).toEqual(['1-1']);
  expect(bench.stores.pointers.size).toBe(1);
});

test('adoption waits for workers that register late, and leaves the tasks alone meanwhile', async () => {
  const bench = await running();
  const late = bench.worker(1);
  void bench.master.close();
  late.alive = false; // The new leader does not see it yet.
  bench.start({ adopt: true }, 2);
  await bench.pass(1_500);
  expect(bench.status).toBe('RECONCILING');
  expect(bench.master.details().waitingFor).toMatch(/looking for them on the workers \(found 2 of 4\)/);
  expect(bench.calls()).toEqual([]);
  late.alive = true;
  bench.cluster.register(late);
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('a worker that does not come back in time: the job begins again from the newest checkpoint and says why', async () => {
  const bench = await running({}, 3);
  bench.cluster.kill(bench.worker(0));
  void bench.master.close();
  bench.start({ adopt: true }, 2);
  await bench.pass(1_900);
  expect(bench.status).toBe('RECONCILING');
  await bench.pass(200);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '2-1']);
  expect(bench.notAdopted).toEqual([expect.stringContaining('4 of 4 tasks: Source (1/2) runs on no worker')]);
  expect(bench.master.details().exceptions.root?.message).toContain('Source (1/2) runs on no worker');
  expect(bench.worker(1).deployments.at(-1)?.tasks[0]?.restore?.checkpointId).toBe(1);
  expect(bench.cluster.liveDeployments().size).toBe(1);
});

test('nobody is waited for once all known workers have come or are dead', async () => {
  const bench = await running({}, 3);
  bench.cluster.kill(bench.worker(0));
  void bench.master.close();
  bench.start({ adopt: true }, 2);
  await bench.pass(50);
  expect(bench.status).toBe('RECONCILING');
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(50);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '2-1']);
});

test('leader and worker die together: only the regions of that worker begin again, the others never stop', async () => {
  const bench = await running({ partitioner: 'FORWARD' }, 3);
  const surviving = bench.worker(1).live();
  bench.cluster.kill(bench.worker(0));
  await bench.takeOver(2);
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(50);
  expect(bench.status).toBe('RUNNING');
  expect(bench.worker(1).live()).toEqual(surviving);
  expect(bench.worker(1).calls).not.toContain('cancel');
  expect(bench.worker(2).deployments).toMatchObject([{ deployment: '2-1', oldestLive: '1-1', tasks: [{}, {}] }]);
  expect(bench.notAdopted).toEqual([expect.stringContaining('2 of 4 tasks')]);
  await bench.pass(1_100);
  const completed = [...bench.stores.pointers.values()].at(-1);
  expect(completed?.deployment).toBe('2-1');
  expect(Object.values(completed?.taskDeployments ?? {})).toEqual([
    ['2-1', '1-1'],
    ['2-1', '1-1'],
  ]);
});

test('a job in the middle of a restart is not adopted half: what is left of it ends, then it is deployed anew', async () => {
  const bench = await running();
  bench.worker(1).answersCancel = false;
  bench.failTask(bench.worker(0));
  await bench.pass(10);
  expect(bench.status).toBe('RESTARTING');
  bench.worker(1).answersCancel = true;
  await bench.takeOver(2);
  await bench.pass(2_100);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '2-1']);
  expect(bench.notAdopted.join()).toMatch(/is (CANCELED|CANCELING|FAILED)|runs on no worker/);
});

test('a job whose cancellation was wished for is ended, not adopted', async () => {
  const bench = await running();
  await bench.takeOver(2, { cancelRequested: true });
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(100);
  expect(bench.outcome?.status).toBe('CANCELED');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('a job that is cancelled while it is being adopted ends all that was found', async () => {
  const bench = await running();
  bench.worker(1).alive = false;
  await bench.takeOver(2);
  expect(bench.status).toBe('RECONCILING');
  bench.master.cancel();
  await bench.pass(100);
  expect(bench.outcome?.status).toBe('CANCELED');
  expect(bench.worker(0).live()).toEqual([]);
  expect(bench.worker(0).allocations.size).toBe(0);
});

test('a zombie is never adopted: its region runs elsewhere and has completed checkpoints since', async () => {
  const bench = await running({ partitioner: 'FORWARD' }, 3);
  const zombie = bench.worker(0);
  // Cut off: it runs on, and the leader gives it up.
  bench.cluster.emit({ kind: 'lost', taskManagerId: zombie.id, reason: 'no heartbeat' });
  await bench.pass(1_500);
  expect(bench.stores.pointers.get(2)?.deployment).toBe('1-2');
  expect(zombie.live()).toHaveLength(2);
  // Now the leader dies together with the worker that took its place, and the zombie comes back.
  bench.cluster.kill(bench.worker(2));
  bench.cluster.worker(1);
  await bench.takeOver(2);
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(100);
  expect(bench.notAdopted.join()).toContain('is of deployment 1-1, but checkpoint 2 is of 1-2');
  expect(zombie.live().filter((id) => zombie.attempts.get(id)?.deployment === '1-1')).toEqual([]);
  expect(bench.status).toBe('RUNNING');
});

test('a checkpoint that cannot be read stops nothing: tasks run on while it is tried again', async () => {
  const bench = await running();
  bench.stores.away = new UnavailableError('S3 is away');
  await bench.takeOver(2);
  await bench.pass(20_000);
  expect(bench.status).toBe('RECONCILING');
  expect(bench.master.details().waitingFor).toContain('its tasks run; trying again to read its checkpoint');
  expect(attempts(bench)).toHaveLength(4);
  bench.stores.away = undefined;
  await bench.pass(40_000);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('told to restart, a new leader ends the old tasks and begins from the newest checkpoint', async () => {
  const bench = await running();
  await bench.takeOver(2, { adopt: false });
  await bench.pass(100);
  expect(bench.deployments()).toEqual(['1-1', '2-1']);
  expect(bench.cluster.liveDeployments()).toEqual(new Set(['2-1']));
});

test('slots are adopted with their allocation ids, and given back when the job ends', async () => {
  const bench = await running();
  const allocations = bench.cluster.workers.map((worker) => [...worker.allocations.keys()]);
  await bench.takeOver(2);
  expect(bench.cluster.workers.map((worker) => [...worker.allocations.keys()])).toEqual(allocations);
  bench.master.cancel();
  await bench.pass(100);
  expect(bench.outcome?.status).toBe('CANCELED');
  for (const worker of bench.cluster.workers) expect(worker.allocations.size).toBe(0);
});

test('a job of which nothing was ever deployed starts as soon as that is known', async () => {
  const bench = new JobBench({}, 1);
  bench.start({ adopt: true });
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1']);
});

/** The job is to stop; its barrier is never answered. */
async function stopping(bench: JobBench, stop: 'DRAIN' | 'SUSPEND'): Promise<void> {
  for (const worker of bench.cluster.workers) worker.acks = false;
  const operation: CheckpointOperation = {
    triggerId: 'b'.repeat(32) as TriggerId,
    jobId: bench.graph.jobId,
    startedWallMs: 0,
    request: { kind: 'SAVEPOINT', location: 'savepoints/s/', stop },
  };
  await bench.stores.operations.begin(operation, bench.stores.leader);
  bench.master.requestCheckpoint(operation);
  await bench.pass(10);
  expect(bench.calls()).toContain('tm-1 trigger 2');
}

const restoredFrom = (bench: JobBench) =>
  bench.cluster.workers.flatMap(({ deployments }) =>
    deployments.filter(({ deployment }) => deployment !== '1-1').map(({ tasks }) => tasks[0]?.restore?.checkpointId),
  );

test('tasks that were drained for a stop that died with its leader begin again; the next leader carries the stop out', async () => {
  const bench = await running();
  await stopping(bench, 'DRAIN');
  for (const worker of bench.cluster.workers) worker.drain();
  await bench.pass(0);
  for (const worker of bench.cluster.workers) worker.acks = true;
  await bench.takeOver(2);
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(50);
  expect(bench.notAdopted).toEqual([
    '4 of 4 tasks: Source (1/2) was drained for a stop whose savepoint did not complete',
  ]);
  expect(bench.deployments()).toEqual(['1-1', '2-1']);
  expect(restoredFrom(bench)).toEqual([1, 1]);
  const stopped = [...bench.stores.pointers.values()].at(-1);
  expect(stopped).toMatchObject({ kind: 'SAVEPOINT', deployment: '2-1' });
});

test('that drained tasks have finished does not make them whole: their region begins again, also when all have', async () => {
  for (const finished of [1, 4]) {
    const bench = await running();
    await stopping(bench, 'DRAIN');
    for (const worker of bench.cluster.workers) worker.drain();
    await bench.pass(0);
    bench.cluster.master = undefined;
    for (const id of attempts(bench).slice(0, finished))
      for (const worker of bench.cluster.workers) worker.set(id, 'FINISHED');
    await bench.takeOver(2);
    bench.cluster.emit({ kind: 'settled' });
    await bench.pass(50);
    expect(bench.outcome?.status).not.toBe('FINISHED');
    expect(restoredFrom(bench)).toEqual([1, 1]);
  }
});

test('of a job of which only some regions were drained the others go on', async () => {
  const bench = await running({ partitioner: 'FORWARD' });
  await stopping(bench, 'DRAIN');
  bench.worker(0).drain();
  await bench.pass(0);
  const others = bench.worker(1).live();
  await bench.takeOver(2);
  bench.cluster.emit({ kind: 'settled' });
  await bench.pass(50);
  expect(bench.notAdopted).toEqual([expect.stringContaining('2 of 4 tasks: Source (1/2) was drained')]);
  expect(bench.worker(1).live()).toEqual(others);
  expect(restoredFrom(bench)).toEqual([1]);
});

test('drained tasks whose savepoint has completed are adopted, and end', async () => {
  const bench = await running();
  await stopping(bench, 'DRAIN');
  for (const worker of bench.cluster.workers) {
    worker.loseNotices = 1_000;
    worker.drain();
  }
  await bench.pass(0);
  for (const worker of bench.cluster.workers) {
    worker.acks = true;
    for (const id of worker.live()) bench.cluster.acknowledge(worker, id, 2);
  }
  await bench.pass(0);
  expect(bench.stores.pointers.has(2)).toBe(true);
  for (const worker of bench.cluster.workers) worker.loseNotices = 0;
  await bench.takeOver(2);
  await bench.pass(1_000);
  expect(bench.notAdopted).toEqual([]);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.deployments()).toEqual(['1-1']);
});

test('an order to drain that is carried out when its leader is dead already makes the job begin again', async () => {
  for (const drains of [true, false]) {
    const bench = await running();
    await bench.takeOver(2);
    for (const worker of bench.cluster.workers) {
      if (drains) worker.drain();
      else worker.endOfData();
    }
    await bench.pass(1_000);
    expect(restoredFrom(bench)).toEqual(drains ? [1, 1] : []);
    expect(bench.outcome?.status).toBe(drains ? undefined : 'FINISHED');
    if (drains) expect(bench.master.details().exceptions.root?.message).toMatch(/drained for a stop whose savepoint/);
  }
});

test('a stop without draining leaves nothing that a new leader could not take over', async () => {
  const bench = await running();
  await stopping(bench, 'SUSPEND');
  for (const worker of bench.cluster.workers) worker.acks = true;
  await bench.takeOver(2);
  await bench.pass(50);
  expect(bench.notAdopted).toEqual([]);
  expect(bench.deployments()).toEqual(['1-1']);
});
