import { afterEach, expect, test } from 'vitest';
import type { Slot, SlotRequest, WorkerEvent } from '../contracts/slots.ts';
import { isMillraceError, type MillraceError } from '../kernel/errors.ts';
import { type AllocationId, asFencingToken, asJobId, asTaskManagerId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { ResourceManager, type ResourceManagerDeps, type ResourceManagerOptions } from './resource-manager.ts';
import { FakeWorker } from './testing/fake-worker.ts';

const TOKEN = asFencingToken(5n);
const job = (n: number) => asJobId(String(n).padStart(32, '0'));
const allocation = (letter: string) => letter.repeat(32) as AllocationId;

const opened: ResourceManager[] = [];
afterEach(async () => {
  for (const manager of opened.splice(0)) await manager.close();
});

async function cluster(
  workers: FakeWorker[],
  { awaitsMaster, ...options }: Partial<ResourceManagerOptions> & Pick<ResourceManagerDeps, 'awaitsMaster'> = {},
) {
  const clock = new ManualClock();
  const all = [...workers];
  const fenced: Error[] = [];
  const manager = new ResourceManager(
    {
      clock,
      random: new SeededRandom(1),
      log: silentLogger,
      connectTaskManager: (address) => {
        const worker = all.find(({ rpcAddress, mode }) => rpcAddress === address && mode !== 'refused');
        if (worker === undefined) throw new Error(`no worker at ${address}`);
        return worker.connect();
      },
      onFenced: (error) => fenced.push(error),
      ...(awaitsMaster === undefined ? {} : { awaitsMaster }),
    },
    { token: TOKEN, heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000, spreadOut: true, ...options },
  );
  opened.push(manager);
  const events: WorkerEvent[] = [];
  manager.subscribe((event) => {
    if (event.kind !== 'reported') events.push(event);
  });
  const register = (worker: FakeWorker) => {
    if (!all.includes(worker)) all.push(worker);
    return manager.registerTaskManager(worker.registration(), TOKEN);
  };
  for (const worker of workers) await register(worker);
  await clock.advance(0); // Their first heartbeats are answered.
  return { clock, manager, events, register, fenced };
}

function ask(manager: ResourceManager, n: number, count: number, extra: Partial<SlotRequest> = {}) {
  const waits: string[] = [];
  const outcome: { slots?: readonly Slot[]; error?: MillraceError } = {};
  const abort = new AbortController();
  const promise = manager
    .requestSlots({
      jobId: job(n),
      count,
      priority: 0,
      timeoutMs: 60_000,
      signal: abort.signal,
      onWaiting: (missing, clusterSlots) => waits.push(`${missing} of ${clusterSlots}`),
      ...extra,
    })
    .then(
      (slots) => {
        outcome.slots = slots;
      },
      (error: MillraceError) => {
        outcome.error = error;
      },
    );
  return { outcome, waits, abort, promise };
}

const names = (slots: readonly Slot[] | undefined) =>
  slots?.map((slot) => `${slot.taskManagerId}${slot.slotIndex}`).sort();

test('a job gets its slots from the registered workers, ready to be used', async () => {
  const [a, b] = [FakeWorker.named('a', 2), FakeWorker.named('b', 2)];
  const { clock, manager } = await cluster([a, b]);
  const { outcome, waits } = ask(manager, 1, 2);
  await clock.advance(0);
  expect(names(outcome.slots)).toEqual(['a0', 'b0']);
  expect(outcome.slots?.[0]).toMatchObject({ host: 'data-host', dataAddress: { port: 1_000 } });
  expect(a.slots[0]).toEqual({ allocationId: outcome.slots?.[0]?.allocationId, jobId: job(1) });
  expect(waits).toEqual([]);
  expect(manager.totals()).toEqual({ taskManagers: 2, slotsTotal: 4, slotsFree: 2 });
  expect(manager.listTaskManagers()[0]).toMatchObject({ id: 'a', slotsTotal: 2, slotsFree: 1, pid: 1 });
});

test('a worker that registers but cannot be reached gets no job', async () => {
  const a = FakeWorker.named('a', 1);
  a.mode = 'silent';
  const { clock, manager, register } = await cluster([a]);
  const { outcome } = ask(manager, 1, 1);
  await clock.advance(1_000);
  expect(outcome).toEqual({});
  await register(FakeWorker.named('b', 1));
  await clock.advance(0);
  expect(names(outcome.slots)).toEqual(['b0']);
  expect(a.calls).not.toContain('allocateSlot');
});

test('a job waits, is told how many slots are missing, and gets all of them once there are enough', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager, register } = await cluster([a]);
  const { outcome, waits } = ask(manager, 1, 3);
  await clock.advance(10);
  expect(outcome).toEqual({});
  expect(a.slots[0]).toBeUndefined();
  await register(FakeWorker.named('b', 1));
  await clock.advance(10);
  await register(FakeWorker.named('c', 1));
  await clock.advance(10);
  expect(waits).toEqual(['2 of 1', '1 of 2', '0 of 3']);
  expect(names(outcome.slots)).toEqual(['a0', 'b0', 'c0']);
});

test('too few slots for the whole time-out: NO_RESOURCES with the numbers, and nothing is kept', async () => {
  const a = FakeWorker.named('a', 2);
  const { clock, manager } = await cluster([a]);
  const { outcome } = ask(manager, 1, 3, { timeoutMs: 4_000 });
  await clock.advance(4_000);
  expect(outcome.error?.code).toBe('NO_RESOURCES');
  expect(outcome.error?.message).toContain('needs 3 slots');
  expect(outcome.error?.message).toContain('2 slots on 1 task managers, 2 of them free');
  expect(a.calls).not.toContain('allocateSlot');
});

test('a withdrawn request ends at once and its slots go to others', async () => {
  const { clock, manager } = await cluster([FakeWorker.named('a', 1)]);
  const first = ask(manager, 1, 2);
  first.abort.abort();
  await clock.advance(0);
  expect(first.outcome.error?.code).toBe('CLOSED');
  expect(ask(manager, 2, 1, { signal: first.abort.signal }).promise).toBeDefined();
  const second = ask(manager, 3, 1);
  await clock.advance(0);
  expect(names(second.outcome.slots)).toEqual(['a0']);
});

test('a slot that a worker fails to give is replaced by another worker’s', async () => {
  const [a, b] = [FakeWorker.named('a', 1), FakeWorker.named('b', 2)];
  a.mode = 'no-allocations';
  const { clock, manager } = await cluster([a, b]);
  const { outcome } = ask(manager, 1, 2);
  await clock.advance(0);
  expect(names(outcome.slots)).toEqual(['b0', 'b1']);
});

test('when no other slot is left the ones already got are given back, and the job waits on', async () => {
  const [a, b] = [FakeWorker.named('a', 1), FakeWorker.named('b', 1)];
  a.mode = 'no-allocations';
  const { clock, manager } = await cluster([a, b]);
  const { outcome } = ask(manager, 1, 2);
  await clock.advance(50);
  expect(outcome).toEqual({});
  expect(b.slots[0]).toBeUndefined();
  a.mode = 'alive';
  await clock.advance(1_100);
  expect(names(outcome.slots)).toEqual(['a0', 'b0']);
});

test('an allocation whose answer was lost is taken back before the slot is used again', async () => {
  const [a, b] = [FakeWorker.named('a', 1), FakeWorker.named('b', 1)];
  a.mode = 'answers-lost';
  const { clock, manager } = await cluster([a, b], { spreadOut: false });
  const { outcome } = ask(manager, 1, 1);
  await clock.advance(10);
  expect(names(outcome.slots)).toEqual(['b0']);
  a.mode = 'alive';
  await clock.advance(2_000);
  expect(a.slots[0]).toBeUndefined();
  expect(manager.totals().slotsFree).toBe(1);
});

test('released slots are freed on the worker and serve the next job', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager } = await cluster([a]);
  const first = ask(manager, 1, 1);
  await clock.advance(0);
  const second = ask(manager, 2, 1);
  await clock.advance(0);
  expect(second.outcome).toEqual({});
  await manager.releaseSlots(job(1), [first.outcome.slots?.[0]?.allocationId as AllocationId], 'done');
  await clock.advance(0);
  expect(names(second.outcome.slots)).toEqual(['a0']);
  expect(a.slots[0]?.jobId).toBe(job(2));
});

test('a release is repeated until the worker answers', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager } = await cluster([a]);
  const first = ask(manager, 1, 1);
  await clock.advance(0);
  a.mode = 'answers-lost';
  const released = manager.releaseSlots(job(1), [first.outcome.slots?.[0]?.allocationId as AllocationId], 'done');
  await clock.advance(300);
  expect(manager.totals().slotsFree).toBe(0);
  a.mode = 'alive';
  await clock.advance(1_000);
  await released;
  expect(manager.totals().slotsFree).toBe(1);
});

test('a silent worker is lost after the time-out, not before', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager, events } = await cluster([a]);
  await clock.advance(2_500);
  a.mode = 'silent';
  await clock.advance(4_000);
  expect(events.map(({ kind }) => kind)).toEqual(['registered']);
  await clock.advance(2_000);
  expect(events.map(({ kind }) => kind)).toEqual(['registered', 'lost']);
  expect(manager.totals().taskManagers).toBe(0);
  expect(a.closedConnections).toBe(1);
});

test('a worker whose process died is lost within a fraction of a second', async () => {
  const [a, b] = [FakeWorker.named('a', 1), FakeWorker.named('b', 1)];
  const { clock, manager, events } = await cluster([a, b], { spreadOut: false });
  const first = ask(manager, 1, 1);
  await clock.advance(500);
  expect(names(first.outcome.slots)).toEqual(['a0']);
  a.die();
  await clock.advance(0);
  expect(events.filter(({ kind }) => kind === 'lost')).toEqual([]); // One refusal is no proof.
  await clock.advance(150);
  expect(events.at(-1)).toMatchObject({ kind: 'lost', taskManagerId: 'a', reason: expect.stringContaining('refused') });
  const again = ask(manager, 1, 1);
  await clock.advance(0);
  expect(names(again.outcome.slots)).toEqual(['b0']);
});

const say = (event: WorkerEvent) => `${event.kind} ${event.kind === 'settled' ? '' : event.taskManagerId}`;

test('a restarted worker at the same address takes the place of the old one at once', async () => {
  const old = new FakeWorker(asTaskManagerId('a'), 1, 'host:1', 1);
  const { events, register, manager } = await cluster([old]);
  old.mode = 'refused';
  await register(new FakeWorker(asTaskManagerId('a2'), 2, 'host:1', 2));
  expect(events.map((event) => say(event))).toEqual(['registered a', 'lost a', 'registered a2']);
  // With a configured, hence repeated, id as well.
  await register(new FakeWorker(asTaskManagerId('a2'), 1, 'host:1', 3));
  expect(events.slice(3).map((event) => say(event))).toEqual(['lost a2', 'registered a2']);
  expect(manager.totals()).toEqual({ taskManagers: 1, slotsTotal: 1, slotsFree: 1 });
});

test('a worker that registers again keeps its slots, even when its report is older than they are', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager, events } = await cluster([a]);
  const stale = a.registration();
  const { outcome } = ask(manager, 1, 1);
  await clock.advance(0);
  await manager.registerTaskManager(stale, TOKEN);
  await clock.advance(0);
  expect(manager.totals().slotsFree).toBe(0);
  expect(names(outcome.slots)).toEqual(['a0']);
  expect(events.map(({ kind }) => kind)).toEqual(['registered']);
});

test('a worker that says goodbye is lost at once', async () => {
  const { manager, events } = await cluster([FakeWorker.named('a', 1)]);
  await manager.disconnectTaskManager({ taskManagerId: asTaskManagerId('a'), reason: 'upgrade' }, TOKEN);
  expect(events.at(-1)).toMatchObject({ kind: 'lost', reason: expect.stringContaining('upgrade') });
});

test('after a failover slots with tasks of an older term are nobody’s until their job gives them back', async () => {
  const a = FakeWorker.named('a', 2);
  a.slots[1] = { allocationId: allocation('a'), jobId: job(1) };
  const { clock, manager } = await cluster([a]);
  const heard: WorkerEvent[] = [];
  manager.subscribe((event) => heard.push(event));
  // Who subscribes late learns what the workers hold.
  expect(heard).toMatchObject([{ kind: 'registered', report: { slots: [{}, { allocation: { jobId: job(1) } }] } }]);
  const own = ask(manager, 1, 2);
  await clock.advance(0);
  expect(own.waits).toEqual(['1 of 2']);
  await manager.releaseSlots(job(1), [allocation('a')], 'left over');
  await clock.advance(0);
  expect(names(own.outcome.slots)).toEqual(['a0', 'a1']);
});

test('slots of a former leader that nobody claims are freed after the grace, not before', async () => {
  const a = FakeWorker.named('a', 1);
  a.slots[0] = { allocationId: allocation('a'), jobId: job(1) };
  const { clock, manager } = await cluster([a], { unclaimedGraceMs: 2_000 });
  await clock.advance(1_900);
  expect(a.slots[0]).toBeDefined();
  await clock.advance(700);
  expect(a.slots[0]).toBeUndefined();
  expect(manager.totals().slotsFree).toBe(1);
});

test('what a worker holds for a job waits for the job’s master, and goes when that has started and does not claim it', async () => {
  const a = FakeWorker.named('a', 1);
  a.slots[0] = { allocationId: allocation('a'), jobId: job(1) };
  let awaited = true;
  const { clock, manager } = await cluster([a], { unclaimedGraceMs: 2_000, awaitsMaster: () => awaited });
  await clock.advance(20_000);
  expect(a.slots[0]).toBeDefined();
  awaited = false;
  const own = ask(manager, 1, 1);
  await clock.advance(700);
  expect(names(own.outcome.slots)).toEqual(['a0']);
});

test('while suspended nothing is commanded and nobody is given up; afterwards work goes on', async () => {
  const [a, b] = [FakeWorker.named('a', 1), FakeWorker.named('b', 1)];
  const { clock, manager, events } = await cluster([a, b], { unclaimedGraceMs: 500 });
  const first = ask(manager, 1, 1);
  await clock.advance(0);
  manager.suspend();
  const second = ask(manager, 2, 1);
  const third = ask(manager, 3, 9, { timeoutMs: 5_000 });
  const released = manager.releaseSlots(job(1), [first.outcome.slots?.[0]?.allocationId as AllocationId], 'done');
  b.mode = 'silent';
  await clock.advance(20_000);
  expect([second.outcome, third.outcome]).toEqual([{}, {}]);
  expect(events.filter(({ kind }) => kind === 'lost')).toEqual([]);
  expect([...a.calls, ...b.calls].filter((call) => call === 'freeSlot')).toEqual([]);
  await expect(manager.registerTaskManager(a.registration(), TOKEN)).rejects.toMatchObject({ code: 'NOT_LEADER' });
  manager.resume();
  await clock.advance(100);
  await released;
  await clock.advance(100);
  expect(names(second.outcome.slots)).toEqual(['a0']);
  expect(third.outcome.error?.code).toBe('NO_RESOURCES');
});

test('calls that mean another leader are refused', async () => {
  const a = FakeWorker.named('a', 1);
  const { manager } = await cluster([]);
  const older = manager.registerTaskManager(a.registration(), asFencingToken(4n));
  await expect(older).rejects.toMatchObject({ code: 'FENCED' });
  const newer = manager.registerTaskManager(a.registration(), asFencingToken(6n));
  await expect(newer).rejects.toMatchObject({ code: 'NOT_LEADER' });
});

test('a registration that contradicts itself is refused', async () => {
  const { manager } = await cluster([]);
  const registration = FakeWorker.named('a', 2).registration();
  await expect(manager.registerTaskManager({ ...registration, slots: 1 }, TOKEN)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});

test('a worker that was away when its job ended is told when it comes back', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager, register } = await cluster([]);
  await manager.releaseJob(job(1));
  a.slots[0] = { allocationId: allocation('a'), jobId: job(1) };
  await register(a);
  await clock.advance(0);
  expect(a.calls).toContain('releaseJob');
  expect(manager.totals().slotsFree).toBe(1);
});

test('a slot that a late command gives to a job that has ended is free again with the next heartbeat', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager } = await cluster([a], { unclaimedGraceMs: 60_000 });
  await manager.releaseJob(job(1));
  a.slots[0] = { allocationId: allocation('a'), jobId: job(1) };
  await clock.advance(1_100);
  expect(a.slots[0]).toBeUndefined();
  expect(manager.totals().slotsFree).toBe(1);
});

test('closing rejects who waits and frees nothing: workers keep what they have for the next leader', async () => {
  const a = FakeWorker.named('a', 1);
  const { clock, manager } = await cluster([a]);
  ask(manager, 1, 1);
  await clock.advance(0);
  const waiting = ask(manager, 2, 1);
  await manager.close();
  await clock.advance(0);
  expect(isMillraceError(waiting.outcome.error, 'CLOSED')).toBe(true);
  expect(a.slots[0]).toBeDefined();
  expect(a.calls).not.toContain('freeSlot');
  await clock.advance(60_000);
  expect(clock.pending).toBe(0);
});
