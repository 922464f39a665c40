import { afterEach, expect, test } from 'vitest';
import type { SlotDeployment } from '../contracts/task.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import { MillraceError, UnavailableError } from '../kernel/errors.ts';
import {
  type AllocationId,
  type AttemptId,
  asFencingToken,
  asJobId,
  asTaskManagerId,
  asVertexId,
  deploymentId,
} from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { TaskManager } from './task-manager.ts';
import { FakeSlotHost } from './testing/fake-engine.ts';
import { FakeLeader, FakeRetrieval } from './testing/fake-leader.ts';

const token = (n: number) => asFencingToken(BigInt(n));
const job = (n: number) => asJobId(String(n).padStart(32, '0'));
const allocation = (n: number) => String(n).padStart(32, 'a') as AllocationId;
const attempt = (n: number) => String(n).padStart(32, 'f') as AttemptId;
const vertexId = asVertexId('e'.repeat(32));
const LEADER = 5;

const opened: { clock: ManualClock; taskManager: TaskManager }[] = [];
afterEach(async () => {
  for (const { clock, taskManager } of opened.splice(0)) {
    const closing = taskManager.close();
    await clock.advance(5_000);
    await closing;
    expect(clock.pending).toBe(0);
  }
});

async function worker(options: { slots?: number; leader?: FakeLeader } = {}) {
  const clock = new ManualClock();
  const retrieval = new FakeRetrieval();
  const host = new FakeSlotHost();
  const leader = options.leader ?? new FakeLeader(LEADER);
  const leaders = [leader];
  const taskManager = await TaskManager.start(
    {
      clock,
      random: new SeededRandom(1),
      log: silentLogger,
      leaderRetrieval: retrieval,
      connectJobManager: (info) => {
        const found = leaders.find((one) => one.token === info.token);
        if (found === undefined) throw new Error('no such leader');
        return found.connect(clock);
      },
      slotHost: host,
      hardware: () => ({ cpuCores: 2, physicalMemoryBytes: 100, freeMemoryBytes: 50 }),
    },
    {
      taskManagerId: asTaskManagerId('worker'),
      rpcAddress: 'worker:1',
      dataHost: 'data-host',
      slots: options.slots ?? 2,
      pid: 7,
      cancellationTimeoutMs: 1_000,
      heartbeatTimeoutMs: 5_000,
    },
  );
  opened.push({ clock, taskManager });
  retrieval.say(leader);
  await clock.advance(0);
  const elect = async (next: FakeLeader) => {
    leaders.push(next);
    retrieval.say(next);
    await clock.advance(0);
  };
  const allocate = (n: number, slotIndex = 0, jobNumber = 1, tokenNumber = LEADER) =>
    taskManager.allocateSlot({ slotIndex, allocationId: allocation(n), jobId: job(jobNumber) }, token(tokenNumber));
  const submit = (deployment: SlotDeployment, tokenNumber = LEADER) =>
    taskManager.submitTasks(deployment, token(tokenNumber));
  const report = (tokenNumber = LEADER) => taskManager.heartbeat({}, token(tokenNumber));
  const states = async (tokenNumber = LEADER) =>
    Object.fromEntries(
      (await report(tokenNumber)).attempts.map((one) => [Number(one.attemptId.replaceAll('f', '')), one.state]),
    );
  return { clock, retrieval, host, leader, taskManager, elect, allocate, submit, report, states };
}

function deployment(
  n: number,
  attempts: number[],
  extra: { allocation?: number; attemptNumber?: number; token?: number } = {},
): SlotDeployment {
  return {
    allocationId: allocation(extra.allocation ?? 1),
    jobId: job(1),
    deployment: deploymentId(token(extra.token ?? LEADER), n),
    graph: {} as SlotDeployment['graph'],
    tasks: attempts.map((id, subtaskIndex) => ({
      ...{ attemptId: attempt(id), attemptNumber: extra.attemptNumber ?? 0, vertexId, subtaskIndex },
      inputs: [],
      outputs: [],
    })),
  };
}

/** Follows a promise without waiting for it. */
function watch(promise: Promise<unknown>) {
  const outcome: { done?: true; error?: MillraceError } = {};
  promise.then(
    () => {
      outcome.done = true;
    },
    (error: MillraceError) => {
      outcome.error = error;
    },
  );
  return outcome;
}

test('a worker registers with the leader and says what it has', async () => {
  const { leader, taskManager } = await worker();
  expect(leader.registrations).toMatchObject([
    { taskManagerId: 'worker', rpcAddress: 'worker:1', slots: 2, pid: 7, report: { slots: [{}, {}], attempts: [] } },
  ]);
  expect(taskManager.registeredWith).toBe(token(LEADER));
});

test('it goes on trying, with growing waits, while the leader cannot be reached or does not lead yet', async () => {
  const leader = new FakeLeader(LEADER);
  leader.mode = 'dead';
  const { clock, taskManager } = await worker({ leader });
  await clock.advance(3_000);
  leader.mode = 'not-leader';
  await clock.advance(3_000);
  expect(taskManager.registeredWith).toBeUndefined();
  leader.mode = 'leading';
  await clock.advance(1_200);
  expect(leader.registrations).toHaveLength(1);
});

test('a slot is allocated, tasks run in it, and every change of state reaches the leader', async () => {
  const { clock, leader, host, allocate, submit, states, report } = await worker();
  expect(await allocate(1)).toEqual({ dataAddress: { host: 'data-host', port: 1_000 } });
  expect(await allocate(1)).toEqual({ dataAddress: { host: 'data-host', port: 1_000 } });
  expect(host.engines).toHaveLength(1);
  await submit(deployment(1, [1, 2]));
  await submit(deployment(1, [1, 2])); // The answer to the first was lost, say.
  await clock.advance(0);
  expect(await states()).toEqual({ 1: 'RUNNING', 2: 'RUNNING' });
  expect((await report()).attempts[0]?.io.readRecords).toBe(7);
  host.newest.finish(attempt(1));
  await clock.advance(0);
  expect(leader.updates.filter(({ attemptId }) => attemptId === attempt(1)).map(({ state }) => state)).toContain(
    'FINISHED',
  );
  expect(await states()).toEqual({ 1: 'FINISHED', 2: 'RUNNING' });
  expect((await report()).slots[0]).toEqual({
    slotIndex: 0,
    allocation: { allocationId: allocation(1), jobId: job(1), dataAddress: { host: 'data-host', port: 1_000 } },
  });
});

test('commands below the highest token are refused before anything else', async () => {
  const { allocate, submit, report, elect, states, taskManager } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await elect(new FakeLeader(9));
  const old = token(LEADER);
  await expect(allocate(2, 1)).rejects.toMatchObject({ code: 'FENCED' });
  await expect(submit(deployment(2, [2]))).rejects.toMatchObject({ code: 'FENCED' });
  await expect(report()).rejects.toMatchObject({ code: 'FENCED' });
  await expect(taskManager.freeSlot({ allocationId: allocation(1), reason: '' }, old)).rejects.toMatchObject({
    code: 'FENCED',
  });
  await expect(taskManager.cancelTasks({ jobId: job(1), attemptIds: [attempt(1)] }, old)).rejects.toMatchObject({
    code: 'FENCED',
  });
  await expect(taskManager.releaseJob({ jobId: job(1) }, old)).rejects.toMatchObject({ code: 'FENCED' });
  expect(await states(9)).toEqual({ 1: 'RUNNING' });
});

test('a command of an old leader that was waiting when the new one came is not carried out', async () => {
  const { clock, host, allocate, submit, elect, states } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  host.newest.deaf = true;
  const waiting = watch(submit(deployment(2, [2]))); // Waits for the older task to end.
  await clock.advance(500);
  await elect(new FakeLeader(9));
  await clock.advance(1_000);
  expect(waiting.error?.code).toBe('FENCED');
  expect(await states(9)).toEqual({ 1: 'CANCELED' });
});

test('a new leader is told of all attempts, running or ended, and the worker never turns back', async () => {
  const { clock, host, allocate, submit, elect, retrieval, leader } = await worker();
  await allocate(1);
  await submit(deployment(1, [1, 2]));
  await clock.advance(0);
  host.newest.finish(attempt(2));
  leader.mode = 'dead';
  const next = new FakeLeader(9);
  await elect(next);
  expect(next.registrations[0]?.report.attempts.map(({ state }) => state)).toEqual(['RUNNING', 'FINISHED']);
  expect(next.registrations[0]?.report.slots[0]?.allocation?.jobId).toBe(job(1));
  leader.mode = 'leading';
  retrieval.say(leader);
  await clock.advance(10_000);
  expect(leader.registrations).toHaveLength(1);
});

test('a new leader is told which attempts were drained, whether they run or have ended', async () => {
  const { clock, host, allocate, submit, elect } = await worker();
  await allocate(1);
  await submit(deployment(1, [1, 2, 3]));
  await clock.advance(0);
  for (const report of host.newest.attempts().slice(0, 2))
    host.newest.become({ ...report, endOfData: true, drained: true });
  host.newest.finish(attempt(1));
  const next = new FakeLeader(LEADER + 1);
  await elect(next);
  expect(next.registrations[0]?.report.attempts.map(({ state, drained = false }) => ({ state, drained }))).toEqual([
    { state: 'FINISHED', drained: true },
    { state: 'RUNNING', drained: true },
    { state: 'RUNNING', drained: false },
  ]);
});

test('an end that happened while nobody led is delivered to the next leader', async () => {
  const { clock, host, leader, allocate, submit, elect, retrieval } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  leader.mode = 'dead';
  retrieval.say(undefined);
  host.newest.finish(attempt(1));
  await clock.advance(60_000);
  const next = new FakeLeader(9);
  await elect(next);
  await clock.advance(0);
  expect(next.updates.map(({ state }) => state)).toEqual(['FINISHED']);
});

test('an attempt that the leader does not know is ended', async () => {
  const { clock, leader, allocate, submit, states } = await worker();
  leader.unknown.add(attempt(1));
  await allocate(1);
  await submit(deployment(1, [1, 2]));
  await clock.advance(10);
  expect(await states()).toEqual({ 1: 'CANCELED', 2: 'RUNNING' });
});

test('a newer deployment ends the tasks of the older one before its own start', async () => {
  const { clock, host, allocate, submit, states } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  await submit(deployment(2, [2]));
  await clock.advance(0);
  expect(host.newest.commands).toEqual(['submit 5-1', 'cancel', 'submit 5-2']);
  expect(await states()).toEqual({ 2: 'RUNNING' }); // The ended attempt of an older deployment is forgotten.
  await expect(submit(deployment(1, [3]))).rejects.toMatchObject({ code: 'CONFLICT' });
});

test('a task that does not react to cancellation is ended with its thread, which is replaced on the same port', async () => {
  const { clock, host, leader, allocate, submit, states, taskManager } = await worker();
  await allocate(1);
  await submit(deployment(1, [1, 2]));
  await clock.advance(0);
  const first = host.newest;
  first.deaf = true;
  await taskManager.cancelTasks({ jobId: job(1), attemptIds: [attempt(1)] }, token(LEADER));
  await clock.advance(900);
  expect(await states()).toEqual({ 1: 'RUNNING', 2: 'RUNNING' });
  await clock.advance(200);
  expect(first.closed).toBe(true);
  expect(await states()).toEqual({ 1: 'CANCELED', 2: 'FAILED' });
  expect(leader.updates.at(-1)?.error?.message).toContain('did not react');
  expect(host.engines).toHaveLength(2);
  expect(host.newest.dataAddress.port).toBe(first.dataAddress.port);
  await submit(deployment(2, [3]));
  await clock.advance(0);
  expect(await states()).toEqual({ 3: 'RUNNING' });
});

test('a crashed engine fails its own slot’s tasks with the reason and no other’s; the slot works again', async () => {
  const { clock, host, leader, allocate, submit, states } = await worker();
  await allocate(1, 0);
  await allocate(2, 1);
  await submit(deployment(1, [1]));
  await submit(deployment(1, [2], { allocation: 2 }));
  await clock.advance(0);
  host.engines[0]?.crash(new MillraceError('USER_CODE', 'the slot ran out of memory'));
  await clock.advance(0);
  expect(await states()).toEqual({ 1: 'FAILED', 2: 'RUNNING' });
  expect(leader.updates.at(-1)).toMatchObject({
    state: 'FAILED',
    error: { code: 'USER_CODE', message: 'the slot ran out of memory' },
  });
  await submit(deployment(2, [3]));
  await clock.advance(0);
  expect(await states()).toMatchObject({ 3: 'RUNNING' });
});

test('a slot whose engine cannot be replaced is given up, so that the leader asks for another', async () => {
  const { clock, host, allocate, submit, report } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  host.failures = Array.from({ length: 4 }, () => new Error('port in use'));
  host.newest.crash(new Error('boom'));
  await clock.advance(2_000);
  expect((await report()).slots[0]).toEqual({ slotIndex: 0 });
  await expect(submit(deployment(2, [2]))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect(await allocate(3)).toBeDefined();
});

test('an engine that does not start refuses the allocation and leaves the slot free', async () => {
  const { host, allocate, report } = await worker();
  host.failures = [new Error('no memory')];
  await expect(allocate(1)).rejects.toThrow('no memory');
  expect((await report()).slots[0]).toEqual({ slotIndex: 0 });
});

test('tasks that the engine does not accept fail with its reason', async () => {
  const { clock, leader, allocate, submit } = await worker();
  await allocate(1);
  await submit(deployment(1, [1], { attemptNumber: 666 }));
  await clock.advance(0);
  expect(leader.updates.at(-1)).toMatchObject({ state: 'FAILED', error: { code: 'PROGRAM' } });
});

test('a report that makes no sense fails its task, not the worker’s heartbeats', async () => {
  const { clock, host, allocate, submit, states, report } = await worker();
  await allocate(1);
  await submit(deployment(1, [1, 2]));
  await clock.advance(0);
  const running = host.newest.held.get(attempt(1));
  if (running === undefined) throw new Error('no attempt');
  const error = { code: 'USER_CODE', message: { not: 'a string' } as unknown as string } as const;
  host.newest.become({ ...running, state: 'FAILED', error });
  host.newest.held.set(attempt(2), {
    ...running,
    attemptId: attempt(2),
    io: { ...running.io, readRecords: Number.NaN },
  });
  expect(await states()).toEqual({ 1: 'FAILED', 2: 'RUNNING' });
  expect(taskManagerGatewaySpec.heartbeat.response.safeParse(await report()).success).toBe(true);
});

test('a cancellation that overtakes its deployment still cancels', async () => {
  const { clock, host, allocate, submit, states, taskManager } = await worker();
  await allocate(1);
  let open: () => void = () => {};
  host.newest.gate = new Promise((resolve) => {
    open = resolve;
  });
  await submit(deployment(1, [1]));
  await taskManager.cancelTasks({ jobId: job(1), attemptIds: [attempt(1)] }, token(LEADER));
  open();
  await clock.advance(0);
  expect(await states()).toEqual({ 1: 'CANCELED' });
});

test('a freed slot ends what runs in it, keeps the attempts’ ends, and is free for another job', async () => {
  const { clock, host, allocate, submit, states, report, taskManager } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  await taskManager.freeSlot({ allocationId: allocation(1), reason: 'test' }, token(LEADER));
  await taskManager.freeSlot({ allocationId: allocation(1), reason: 'again' }, token(LEADER));
  expect(host.newest.closed).toBe(true);
  expect(await states()).toEqual({ 1: 'CANCELED' });
  expect((await report()).slots[0]).toEqual({ slotIndex: 0 });
  await expect(allocate(1)).rejects.toMatchObject({ code: 'CONFLICT' });
  await allocate(2, 0, 2);
  expect(host.engines).toHaveLength(2);
});

test('a released job is forgotten: slots, attempts, and what still waited to be said', async () => {
  const { clock, leader, allocate, submit, report, taskManager } = await worker();
  await allocate(1);
  leader.mode = 'silent';
  await submit(deployment(1, [1]));
  await clock.advance(0);
  await taskManager.releaseJob({ jobId: job(1) }, token(LEADER));
  expect(await report()).toMatchObject({ slots: [{ slotIndex: 0 }, { slotIndex: 1 }], attempts: [] });
  await expect(submit(deployment(1, [1]))).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('checkpoint commands reach the slots that hold the attempts', async () => {
  const { clock, host, allocate, submit, taskManager } = await worker();
  await allocate(1, 0);
  await allocate(2, 1);
  await submit(deployment(1, [1, 2]));
  await submit(deployment(1, [3], { allocation: 2 }));
  await clock.advance(0);
  const common = { jobId: job(1), deployment: deploymentId(token(LEADER), 1), checkpointId: 4 };
  const options = { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 } as const;
  const attemptIds = [attempt(1), attempt(2), attempt(99)];
  await taskManager.triggerCheckpoint({ ...common, timestampMs: 1, options, attemptIds }, token(LEADER));
  await taskManager.notifyCheckpointComplete(common, token(LEADER));
  expect(host.engines.map(({ commands }) => commands.slice(1))).toEqual([
    ['trigger 4 2', 'complete 4'],
    ['complete 4'],
  ]);
});

function ackOf(host: FakeSlotHost, checkpointId: number) {
  const held = [...host.newest.held.values()][0];
  if (held === undefined) throw new Error('no attempt');
  const { jobId, deployment: of, vertexId: vertex, subtaskIndex, attemptId } = held;
  host.newest.request.events.checkpointAck({
    ...{ jobId, deployment: of, checkpointId, vertexId: vertex, subtaskIndex, attemptId },
    ...{ operators: [], stateBytes: 0, alignmentMs: 0, syncMs: 0, asyncMs: 0 },
  });
}

test('acknowledgements are repeated while the leader that asked leads, and dropped when another does', async () => {
  const { clock, host, leader, allocate, submit, elect } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  leader.ackFailures = [new UnavailableError('busy'), new UnavailableError('busy')];
  ackOf(host, 1);
  await clock.advance(1_000);
  expect(leader.acks.map(({ checkpointId }) => checkpointId)).toEqual([1]);
  leader.mode = 'dead';
  ackOf(host, 2);
  await clock.advance(100);
  const next = new FakeLeader(9);
  await elect(next);
  await clock.advance(2_000);
  expect(next.acks).toEqual([]);
});

test('an acknowledgement that the leader can never take becomes a refusal of the checkpoint', async () => {
  const { clock, host, leader, allocate, submit } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  leader.ackFailures = [new MillraceError('TOO_LARGE', '70 MB')];
  ackOf(host, 1);
  await clock.advance(10);
  expect(leader.declines).toMatchObject([{ checkpointId: 1, reason: { code: 'TOO_LARGE' } }]);
});

test('cut off from a leader that exists, the worker ends its own tasks after the time-out and reports it later', async () => {
  const { clock, leader, allocate, submit, states } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  leader.mode = 'silent';
  await clock.advance(4_500);
  expect(leader.updates.at(-1)?.state).toBe('RUNNING');
  await clock.advance(1_000);
  leader.mode = 'leading';
  await clock.advance(5_000);
  expect(leader.registrations.at(-1)?.report.attempts).toMatchObject([
    { state: 'FAILED', error: { code: 'UNAVAILABLE' } },
  ]);
  expect(await states()).toEqual({ 1: 'FAILED' });
});

test('when the store is away, or nobody leads, tasks run on', async () => {
  const { clock, leader, retrieval, allocate, submit, elect, states } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  leader.mode = 'dead';
  retrieval.online = false;
  await clock.advance(60_000);
  retrieval.online = true;
  retrieval.say(undefined);
  await clock.advance(60_000);
  await elect(new FakeLeader(9));
  expect(await states(9)).toEqual({ 1: 'RUNNING' });
});

test('heartbeats keep a worker registered; without them it registers again', async () => {
  const { clock, leader, report } = await worker();
  for (let i = 0; i < 20; i++) {
    await clock.advance(1_000);
    await report();
  }
  expect(leader.registrations).toHaveLength(1);
  await clock.advance(3_300);
  expect(leader.registrations).toHaveLength(2);
});

test('closing ends the tasks first, then says goodbye, and takes no more commands', async () => {
  const { clock, host, leader, allocate, submit, taskManager } = await worker();
  await allocate(1);
  await submit(deployment(1, [1]));
  await clock.advance(0);
  const updates = leader.updates.length;
  await taskManager.close();
  expect(host.newest.closed).toBe(true);
  expect(leader.goodbyes).toEqual(['the worker shuts down']);
  expect(leader.updates).toHaveLength(updates);
  await expect(allocate(2, 1)).rejects.toMatchObject({ code: 'CLOSED' });
});

test('closing does not wait for a leader that does not answer', async () => {
  const { clock, leader, taskManager } = await worker();
  leader.mode = 'silent';
  const closing = watch(taskManager.close());
  await clock.advance(2_100);
  expect(closing.done).toBe(true);
});
