import { expect, test } from 'vitest';
import type { Slot, WorkerEvent } from '../contracts/slots.ts';
import { silentLogger } from '../kernel/log.ts';
import { asAllocationId, asFencingToken, asJobId, asTaskManagerId } from '../kernel/ids.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { ResourceManager } from './resource-manager.ts';
import { FakeWorker } from './testing/fake-worker.ts';

const TOKEN = asFencingToken(7n);
const JOB = asJobId('1'.repeat(32));

/** A new leader that expects these workers. */
function term(...workers: FakeWorker[]) {
  const clock = new ManualClock();
  const events: string[] = [];
  const manager = new ResourceManager(
    {
      clock,
      random: new SeededRandom(1),
      log: silentLogger,
      connectTaskManager: (address) => {
        const worker = workers.find((one) => one.rpcAddress === address);
        if (worker === undefined) throw new Error(`nobody at ${address}`);
        return worker.connect();
      },
      knownWorkers: () => workers.map(({ id, rpcAddress }) => ({ taskManagerId: id, rpcAddress })),
    },
    { token: TOKEN, heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000, spreadOut: true },
  );
  const name = (event: WorkerEvent) => (event.kind === 'settled' ? 'settled' : `${event.kind} ${event.taskManagerId}`);
  manager.subscribe((event) => void events.push(name(event)));
  const register = async (worker: FakeWorker) => {
    await manager.registerTaskManager(worker.registration(), TOKEN);
    await clock.advance(0);
  };
  const ask = (count: number) => {
    const outcome = { slots: undefined as readonly Slot[] | undefined };
    void manager
      .requestSlots({
        jobId: JOB,
        count,
        priority: 0,
        timeoutMs: 60_000,
        signal: new AbortController().signal,
        onWaiting: () => undefined,
      })
      .then((slots) => {
        outcome.slots = slots;
      });
    return outcome;
  };
  return { clock, manager, events, register, ask };
}

const worker = (name: string, slots = 2) => new FakeWorker(asTaskManagerId(name), slots, `${name}:1`, 1);

test('the first worker to register after a takeover does not get everything: known workers are waited for', async () => {
  const [a, b] = [worker('a'), worker('b')];
  const { clock, register, ask } = term(a, b);
  const outcome = ask(2);
  await register(a);
  await clock.advance(500);
  expect(outcome.slots).toBeUndefined();
  await register(b);
  await clock.advance(10);
  expect(outcome.slots?.map((slot) => slot.taskManagerId).sort()).toEqual(['a', 'b']);
});

test('a known worker whose process is dead is not waited for', async () => {
  const [a, dead] = [worker('a'), worker('dead')];
  dead.mode = 'refused';
  const { clock, register, events } = term(a, dead);
  await register(a);
  expect(events).not.toContain('settled');
  await clock.advance(500);
  expect(events.filter((event) => event === 'settled')).toEqual(['settled']);
});

test('one that neither answers nor refuses is waited for, but not for ever', async () => {
  const [a, silent] = [worker('a'), worker('silent')];
  silent.mode = 'silent';
  const { clock, register, events, ask } = term(a, silent);
  const outcome = ask(2);
  await register(a);
  await clock.advance(1_900);
  expect(events).not.toContain('settled');
  await clock.advance(200);
  expect(events).toContain('settled');
  expect(outcome.slots).toHaveLength(2);
});

test('whoever asks later hears that all have come', async () => {
  const { manager } = term();
  const heard: string[] = [];
  manager.subscribe((event) => void heard.push(event.kind));
  expect(heard).toEqual(['settled']);
});

test('slots that a worker holds for a job are taken over with their ids, once the job asks for them', async () => {
  const a = worker('a');
  const allocationId = asAllocationId('5'.repeat(32));
  const dataAddress = { host: 'h', port: 9 };
  a.slots[0] = { allocationId, jobId: JOB, dataAddress };
  const { manager, register, clock } = term(a);
  await register(a);
  expect(manager.claimSlots(asJobId('2'.repeat(32)), [allocationId])).toEqual([]);
  expect(manager.claimSlots(JOB, [allocationId])).toMatchObject([{ allocationId, slotIndex: 0, dataAddress }]);
  // Claimed slots are the job's, however long it takes; claiming again gives the same.
  await clock.advance(60_000);
  expect(manager.totals().slotsFree).toBe(1);
  expect(manager.claimSlots(JOB, [allocationId])).toHaveLength(1);
  await manager.releaseSlots(JOB, [allocationId], 'test');
  expect(manager.totals().slotsFree).toBe(2);
});

test('while it is not known who is there, nobody is taken for missing before the time is over', async () => {
  const clock = new ManualClock();
  const heard: string[] = [];
  const gone: string[] = [];
  const manager = new ResourceManager(
    {
      clock,
      random: new SeededRandom(1),
      log: silentLogger,
      connectTaskManager: () => worker('a').connect(),
      knownWorkers: () => undefined,
      onWorkerGone: (taskManagerId) => gone.push(taskManagerId),
    },
    { token: TOKEN, heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000, spreadOut: true },
  );
  manager.subscribe((event) => void heard.push(event.kind));
  await clock.advance(1_900);
  expect(heard).toEqual([]);
  await clock.advance(200);
  expect(heard).toEqual(['settled']);
  expect(gone).toEqual([]);
});

test('a worker that is listed and never comes is forgotten, also when the list was not there in the beginning', async () => {
  const clock = new ManualClock();
  const gone: string[] = [];
  const [a, b] = [worker('a'), worker('b')];
  let listed: readonly FakeWorker[] | undefined;
  const manager = new ResourceManager(
    {
      clock,
      random: new SeededRandom(1),
      log: silentLogger,
      connectTaskManager: () => a.connect(),
      knownWorkers: () => listed?.map(({ id, rpcAddress }) => ({ taskManagerId: id, rpcAddress })),
      onWorkerGone: (taskManagerId) => gone.push(taskManagerId),
    },
    { token: TOKEN, heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000, spreadOut: true },
  );
  await manager.registerTaskManager(a.registration(), TOKEN);
  await clock.advance(10_000);
  listed = [a, b];
  await clock.advance(5_000);
  expect(gone).toEqual([]);
  await clock.advance(5_000);
  // The one that is here is no business of this, however often it is listed.
  expect(new Set(gone)).toEqual(new Set(['b']));
  await manager.close();
  expect(clock.pending).toBe(0);
});
