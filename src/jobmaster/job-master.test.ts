import { expect, test } from 'vitest';
import { isTerminalExecutionState } from '../contracts/job-status.ts';
import { MillraceError } from '../kernel/errors.ts';
import { asAttemptId } from '../kernel/ids.ts';
import { JobBench } from './job-bench.fixture.ts';

test('a job waits for slots and says so, is deployed once there are enough, and shows what it does', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 1, 1).started();
  expect(bench.status).toBe('CREATED');
  expect(bench.master.details().waitingFor).toBe('waiting for 1 more slot; the cluster has 1 in all');
  bench.cluster.worker(1);
  await bench.pass(0);
  const details = bench.master.details();
  expect(details).toMatchObject({ status: 'RUNNING', waitingFor: undefined, restarts: 0, endMs: -1 });
  expect(details.tasks).toMatchObject({ RUNNING: 4, CREATED: 0, FINISHED: 0 });
  expect(details.vertices[0]).toMatchObject({ status: 'RUNNING', parallelism: 2, io: { readRecords: 14 } });
  expect(details.vertices[1]?.subtasks[1]).toMatchObject({ state: 'RUNNING', attemptNumber: 0, taskManagerId: 'tm-2' });
  expect(details.timestamps.RUNNING).toBeGreaterThan(0);
  expect(bench.deployments()).toEqual(['1-1']);
});

test('a bounded job ends with a final checkpoint and is FINISHED once every task is', async () => {
  const bench = await new JobBench({ parallelism: 2, checkpointing: { minPauseMs: 60_000 } }, 2).started();
  await bench.pass(1_000);
  expect(bench.stores.log).toEqual(['completed 1', 'subsume to 1']);
  bench.worker(0).endOfData();
  await bench.pass(500);
  expect(bench.stores.log).toHaveLength(2);
  bench.worker(1).endOfData();
  await bench.pass(0);
  expect(bench.stores.log.slice(2)).toEqual(['completed 2', 'subsume to 1']);
  expect(bench.outcome).toMatchObject({ status: 'FINISHED', error: undefined });
  expect(bench.outcome?.details.checkpoints.counts).toEqual({
    restored: 0,
    total: 2,
    inProgress: 0,
    completed: 2,
    failed: 0,
  });
  expect(bench.outcome?.details.tasks.FINISHED).toBe(4);
  expect(bench.cluster.released).toEqual(['the job is FINISHED', 'the job is FINISHED']);
  await bench.master.close();
  expect(bench.cluster.releasedJobs).toEqual([bench.graph.jobId]);
  expect(bench.clock.pending).toBe(0);
});

test('a failed task restarts the job from the newest checkpoint with higher attempt numbers', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  await bench.pass(1_000);
  bench.failTask(bench.worker(0));
  await bench.pass(0);
  expect(bench.status).toBe('RESTARTING');
  expect(bench.master.details().waitingFor).toBe('restarting in 100 ms');
  await bench.pass(100);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '1-2']);
  const [task] = bench.worker(0).deployments.at(-1)?.tasks ?? [];
  expect(task).toMatchObject({ subtaskIndex: 0, attemptNumber: 1, restore: { checkpointId: 1 } });
  expect(task?.restore?.operators[0]?.keyed[0]?.handle).toMatchObject({ kind: 'object' });
  const details = bench.master.details();
  expect(details.restarts).toBe(1);
  expect(details.exceptions.root).toMatchObject({ name: 'USER_CODE', message: 'boom', taskName: 'Source (1/2)' });
  expect(details.checkpoints.latestRestored).toMatchObject({ id: 1, isSavepoint: false });
  // The slot where the task failed was given back, the other kept: one was asked for again.
  expect(bench.cluster.requests).toEqual([2, 1]);
});

test('a worker lost in the middle of a checkpoint: it is aborted, its objects go, the job moves', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.cluster.worker(1);
  bench.worker(1).acks = false;
  await bench.pass(1_000);
  expect(bench.master.details().checkpoints.counts.inProgress).toBe(1);
  bench.cluster.kill(bench.worker(1));
  await bench.pass(0);
  expect(bench.stores.discarded).toHaveLength(2);
  await bench.pass(100);
  expect(bench.status).toBe('RUNNING');
  expect(
    bench.master
      .details()
      .vertices[0]?.subtasks.map((s) => s.taskManagerId)
      .sort(),
  ).toEqual(['tm-1', 'tm-3']);
  expect(bench.master.details().exceptions.root?.message).toContain('worker tm-2 is lost');
  expect(bench.worker(0).deployments.at(-1)?.tasks[0]?.restore).toBeUndefined();
  await bench.pass(1_000);
  expect(bench.stores.log).toEqual(['completed 2', 'subsume to 1']);
});

test('an acknowledgement that comes after its checkpoint was aborted has its objects discarded', async () => {
  const bench = await new JobBench({ parallelism: 1, checkpointing: { timeoutMs: 500 } }).started();
  bench.worker(0).acks = false;
  await bench.pass(1_500);
  expect(bench.master.details().checkpoints.latestFailed).toMatchObject({
    id: 1,
    failure: expect.stringContaining('expired'),
  });
  expect(bench.worker(0).calls).toContain('aborted 1');
  const [attempt] = bench.worker(0).live();
  if (attempt === undefined) throw new Error('attempt');
  bench.cluster.acknowledge(bench.worker(0), attempt, 1);
  await bench.pass(0);
  expect(bench.stores.discarded).toEqual(['state-1-1-0']);
});

test('a worker that refuses a deployment fails it; its slot is given back and the job is deployed again', async () => {
  const bench = new JobBench({ parallelism: 2 }, 2);
  bench.worker(1).refuseDeploy = new MillraceError('UNKNOWN_OUTCOME', 'no answer');
  await bench.started();
  expect(bench.status).toBe('RESTARTING');
  expect(bench.cluster.liveDeployments().size).toBe(0);
  await bench.pass(100);
  expect(bench.status).toBe('RUNNING');
  expect(bench.cluster.liveDeployments()).toEqual(new Set(['1-2']));
});

test('a worker that never answers a cancellation loses its slot, and only then is the job deployed again', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.worker(1).answersCancel = false;
  bench.failTask(bench.worker(0));
  await bench.pass(2_999);
  expect(bench.status).toBe('RESTARTING');
  expect(bench.master.details().waitingFor).toBe('waiting for 2 tasks to end');
  expect(bench.deployments()).toEqual(['1-1']);
  await bench.pass(1);
  expect(bench.cluster.released).toContain('its tasks did not end in time');
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
  expect(bench.cluster.liveDeployments()).toEqual(new Set(['1-2']));
});

test('a worker that neither cancels nor gives back its slot delays the job for a bounded time', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started({ releaseTimeoutMs: 5_000 });
  bench.cluster.worker(1);
  bench.worker(1).answersCancel = false;
  bench.worker(1).answersFree = false;
  bench.failTask(bench.worker(0));
  await bench.pass(7_999);
  expect(bench.deployments()).toEqual(['1-1']);
  await bench.pass(1);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '1-2']);
});

test('the job fails with its root cause when the strategy gives up, after its tasks have ended', async () => {
  const bench = await new JobBench({ parallelism: 2, restartStrategy: { type: 'none' } }, 2).started();
  bench.worker(1).answersCancel = false;
  bench.failTask(bench.worker(0), 'the root cause');
  await bench.pass(100);
  expect(bench.status).toBe('FAILING');
  expect(bench.outcome).toBeUndefined();
  const [last, other] = bench.worker(1).live();
  if (last === undefined || other === undefined) throw new Error('attempts');
  bench.worker(1).set(last, 'FAILED', { code: 'INTERNAL', message: 'a consequence' });
  bench.worker(1).set(other, 'CANCELED');
  await bench.pass(0);
  expect(bench.outcome).toMatchObject({ status: 'FAILED', error: { message: 'the root cause' } });
  expect(bench.master.details().endMs).toBeGreaterThan(0);
});

test('too few slots in time and no restarts: the job is FAILED with NO_RESOURCES', async () => {
  const bench = await new JobBench({ parallelism: 3, restartStrategy: { type: 'none' } }, 1).started();
  await bench.pass(10_000);
  expect(bench.outcome).toMatchObject({ status: 'FAILED', error: { code: 'NO_RESOURCES' } });
  expect(bench.deployments()).toEqual([]);
});

test('a new job that needs more slots than the cluster has fails after the time-out, whatever its strategy', async () => {
  const bench = await new JobBench({ parallelism: 3 }, 2).started();
  await bench.pass(9_999);
  expect(bench.outcome).toBeUndefined();
  await bench.pass(1);
  expect(bench.outcome).toMatchObject({ status: 'FAILED', error: { code: 'NO_RESOURCES' } });
});

test('a job that waits for a cluster without workers, or for lost ones to come back, goes by its strategy', async () => {
  const none = await new JobBench({ parallelism: 3 }, 0).started();
  await none.pass(10_050);
  expect(none.status).toBe('RESTARTING');
  const some = await new JobBench({ parallelism: 2 }, 2).started();
  some.cluster.kill(some.worker(1));
  await some.pass(12_150);
  expect(some.status).toBe('RESTARTING');
  some.cluster.worker(1);
  await some.pass(200);
  expect(some.status).toBe('RUNNING');
});

test('slots that survived are kept for a moment only: waiting for more, the job holds none', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.cluster.kill(bench.worker(1));
  await bench.pass(100);
  expect(bench.cluster.requests).toEqual([2, 1]);
  expect(bench.worker(0).allocations.size).toBe(1);
  await bench.pass(2_000);
  expect(bench.cluster.requests).toEqual([2, 1, 2]);
  expect(bench.worker(0).allocations.size).toBe(0);
  bench.cluster.worker(1);
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
});

test('an unknown outcome is not a failure: read back, completed, told', async () => {
  const bench = await new JobBench({ checkpointing: { tolerableFailedCheckpoints: 0 } }).started();
  bench.stores.fates = ['lost-undone', 'lost-undone', 'lost'];
  await bench.pass(1_900);
  expect(bench.stores.discarded).toEqual([]);
  expect(bench.master.details().checkpoints.counts).toMatchObject({ completed: 1, failed: 0 });
  expect(bench.worker(0).calls).toContain('complete 1');
  expect(bench.status).toBe('RUNNING');
});

test('a restart waits for the outcome of a checkpoint that is being written, and uses it', async () => {
  const bench = await new JobBench().started();
  let open = () => {};
  bench.stores.gate = new Promise((resolve) => {
    open = resolve;
  });
  await bench.pass(1_000);
  bench.failTask(bench.worker(0));
  await bench.pass(1_000);
  expect(bench.master.details().waitingFor).toBe('reading the newest checkpoint');
  open();
  await bench.pass(0);
  expect(bench.worker(0).deployments.at(-1)?.tasks[0]?.restore?.checkpointId).toBe(1);
});

test('a store that refuses our token ends everything at once: the owner is told, no command follows', async () => {
  const bench = await new JobBench().started();
  bench.stores.leader = bench.cluster.token = 2n as typeof bench.stores.leader;
  await bench.pass(1_000);
  expect(bench.fenced).toHaveLength(1);
  const calls = bench.worker(0).calls.length;
  bench.failTask(bench.worker(0));
  bench.master.cancel();
  await bench.pass(60_000);
  expect(bench.worker(0).calls).toHaveLength(calls);
  expect(bench.stores.discarded).toEqual([]);
  expect(bench.outcome).toBeUndefined();
  await bench.master.close();
  expect(bench.clock.pending).toBe(0);
});

test('a worker that has seen a newer leader fences the master', async () => {
  const bench = await new JobBench().started();
  bench.worker(0).highestToken = 9n as typeof bench.cluster.token;
  await bench.pass(1_000);
  expect(bench.fenced).toHaveLength(1);
  const calls = bench.worker(0).calls.length;
  await bench.pass(60_000);
  expect(bench.worker(0).calls).toHaveLength(calls);
  expect(bench.clock.pending).toBe(0);
});

test('lost notices of a completed checkpoint are repeated until the worker has them', async () => {
  const bench = await new JobBench().started();
  bench.worker(0).loseNotices = 3;
  bench.worker(0).endOfData();
  await bench.pass(50);
  expect(bench.outcome).toBeUndefined();
  await bench.pass(5_000);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.worker(0).calls.filter((call) => call === 'complete 1')).toHaveLength(4);
});

test('part of the tasks finish after the final checkpoint while the notice for others is still under way', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.worker(1).loseNotices = 4;
  bench.worker(0).endOfData();
  bench.worker(1).endOfData();
  await bench.pass(100);
  expect(bench.master.details().tasks).toMatchObject({ FINISHED: 2, RUNNING: 2 });
  await bench.pass(5_000);
  expect(bench.outcome?.status).toBe('FINISHED');
  expect(bench.stores.log.filter((line) => line.startsWith('completed'))).toEqual(['completed 1']);
});

test('more failed checkpoints in a row than the job bears restart it', async () => {
  const bench = await new JobBench({ checkpointing: { tolerableFailedCheckpoints: 1, timeoutMs: 500 } }).started();
  bench.worker(0).acks = false;
  await bench.pass(2_400);
  expect(bench.status).toBe('RUNNING');
  await bench.pass(150);
  expect(bench.status).toBe('RESTARTING');
  expect(bench.master.details().exceptions.root).toMatchObject({ name: 'TIMEOUT' });
});

test('while suspended nothing is decided or sent; what happened meanwhile counts after resuming', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.master.suspend();
  const calls = bench.cluster.workers.map((worker) => worker.calls.length);
  bench.failTask(bench.worker(0));
  for (let i = 0; i < 5; i++) bench.cluster.heartbeat(bench.worker(1));
  await bench.pass(30_000);
  expect(bench.status).toBe('RUNNING');
  expect(bench.master.details().waitingFor).toBe('leadership of this master is in doubt');
  expect(bench.cluster.workers.map((worker) => worker.calls.length)).toEqual(calls);
  const stranger = { ...bench.worker(1).report().attempts[0], attemptId: asAttemptId('f'.repeat(32)) };
  expect(bench.master.updateTaskState(stranger as never)).toBe(true);
  bench.master.resume();
  await bench.pass(200);
  expect(bench.status).toBe('RUNNING');
  expect(bench.deployments()).toEqual(['1-1', '1-2']);
});

test('a suspended master that is closed sends nothing, ends nothing, and its job goes on under the next one', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  await bench.pass(1_000);
  bench.master.suspend();
  bench.master.cancel();
  await bench.master.close();
  expect(bench.clock.pending).toBe(0);
  await bench.pass(10_000);
  expect(bench.outcome).toBeUndefined();
  expect(bench.cluster.liveDeployments()).toEqual(new Set(['1-1']));

  bench.start({}, 2);
  await bench.pass(100);
  // What the earlier term left was ended before anything new was deployed.
  expect(bench.cluster.liveDeployments()).toEqual(new Set(['2-1']));
  expect(bench.cluster.released.slice(0, 2)).toEqual(Array(2).fill('left over from an older deployment'));
  expect(bench.worker(0).deployments.at(-1)?.tasks[0]).toMatchObject({
    attemptNumber: 1,
    restore: { checkpointId: 1 },
  });
  await bench.pass(1_000);
  expect([...bench.stores.pointers.keys()]).toEqual([2]);
});

test('a worker that registers late has its leftovers ended before the job is deployed elsewhere', async () => {
  const bench = await new JobBench({}, 1).started();
  await bench.master.close();
  const late = bench.worker(0);
  late.answersFree = false;
  const other = bench.cluster.worker(1, false);
  bench.start({ releaseTimeoutMs: 5_000 }, 2);
  await bench.pass(0);
  // A free slot is there, but the old attempt has not been confirmed to have ended.
  expect(bench.status).toBe('CREATED');
  expect(bench.master.details().waitingFor).toBe('waiting for 1 slot of an older deployment to end');
  expect(other.deployments).toEqual([]);
  await bench.pass(5_000);
  expect(bench.status).toBe('RUNNING');
  expect(other.deployments).toHaveLength(1);
});

test('reports of unknown or older attempts are refused; late, doubled and backward ones change nothing', async () => {
  const bench = await new JobBench().started();
  const worker = bench.worker(0);
  const [running] = worker.report().attempts;
  if (running === undefined) throw new Error('attempt');
  expect(bench.master.updateTaskState({ ...running, attemptId: asAttemptId('f'.repeat(32)) })).toBe(false);
  expect(bench.master.updateTaskState({ ...running, state: 'DEPLOYING' })).toBe(true);
  expect(bench.master.details().tasks.RUNNING).toBe(2);
  const failed = { ...running, state: 'FAILED' as const };
  expect(bench.master.updateTaskState(failed)).toBe(true);
  expect(bench.master.updateTaskState(failed)).toBe(true);
  expect(bench.master.updateTaskState({ ...running, state: 'FINISHED' })).toBe(true);
  await bench.pass(100);
  expect(bench.master.details()).toMatchObject({ status: 'RUNNING', restarts: 1 });
  expect(bench.master.updateTaskState(failed)).toBe(false);
  expect(bench.master.details()).toMatchObject({ status: 'RUNNING', restarts: 1 });
});

test('a heartbeat brings what a lost update would have said', async () => {
  const bench = await new JobBench().started();
  const worker = bench.worker(0);
  bench.cluster.master = undefined; // updates get lost
  bench.failTask(worker);
  await bench.pass(100);
  expect(bench.status).toBe('RUNNING');
  bench.cluster.master = bench.master;
  bench.cluster.heartbeat(worker);
  await bench.pass(200);
  expect(bench.master.details()).toMatchObject({ status: 'RUNNING', restarts: 1 });
});

test('an attempt that its worker no longer holds is lost, but not by a report that may be older than it', async () => {
  const bench = await new JobBench().started();
  const worker = bench.worker(0);
  worker.attempts.clear();
  bench.cluster.heartbeat(worker);
  bench.cluster.heartbeat(worker);
  await bench.pass(0);
  expect(bench.status).toBe('RUNNING');
  bench.cluster.heartbeat(worker);
  await bench.pass(0);
  expect(bench.status).toBe('RESTARTING');
  expect(bench.master.details().exceptions.root?.message).toContain('no longer held by its worker tm-1');
});

test('no task is ever left live when a job has ended, and views stay as they were at the end', async () => {
  const bench = await new JobBench({ parallelism: 2 }, 2).started();
  bench.master.cancel();
  await bench.pass(100);
  expect(bench.outcome?.status).toBe('CANCELED');
  const details = bench.master.details();
  expect(details.vertices.flatMap((v) => v.subtasks).every((s) => isTerminalExecutionState(s.state))).toBe(true);
  await bench.pass(10_000);
  expect(bench.master.details()).toEqual(details);
});
