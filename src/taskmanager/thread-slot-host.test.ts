import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { AttemptReport, CheckpointAck, SlotDeployment } from '../contracts/task.ts';
import { SystemClock } from '../kernel/clock.ts';
import { isMillraceError } from '../kernel/errors.ts';
import { type AllocationId, type AttemptId, asFencingToken, asJobId, asVertexId, deploymentId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import type { SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import { until } from '../../test-support/until.ts';
import { SlotThread } from './slot-thread.ts';
import { ThreadSlotHost, type ThreadSlotHostOptions } from './thread-slot-host.ts';

/** As in `testing/fake-slot-worker.ts`, which only a thread can import. */
const BEHAVIOURS = [
  'run',
  'loop',
  'eat-memory',
  'exit',
  'throw-later',
  'refuse',
  'grow-state',
  'greet-neighbour',
] as const;

let folder: string;
let workerUrl: URL;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-slot-'));
  const outfile = join(folder, 'fake-slot-worker.mjs');
  const entry = new URL('./testing/fake-slot-worker.ts', import.meta.url).pathname;
  await build({ entryPoints: [entry], bundle: true, platform: 'node', format: 'esm', outfile });
  workerUrl = pathToFileURL(outfile);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const hosts: ThreadSlotHost[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close();
});

async function start(options: Partial<ThreadSlotHostOptions> = {}): Promise<ThreadSlotHost> {
  const host = await ThreadSlotHost.start(
    { clock: new SystemClock(), log: silentLogger },
    { workerUrl, workerData: {}, heapBytes: 32 * 1024 * 1024, advertisedHost: 'me', reportIntervalMs: 20, ...options },
  );
  hosts.push(host);
  return host;
}

// Threads that fill their heap take their time when the machine is busy.
vi.setConfig({ testTimeout: 60_000 });

const jobId = asJobId('1'.repeat(32));
const attemptId = 'f'.repeat(32) as AttemptId;

function deployment(behaviour: (typeof BEHAVIOURS)[number]): SlotDeployment {
  return {
    allocationId: 'a'.repeat(32) as AllocationId,
    jobId,
    deployment: deploymentId(asFencingToken(1n), 1),
    graph: {} as SlotDeployment['graph'],
    tasks: [
      {
        ...{ attemptId, attemptNumber: BEHAVIOURS.indexOf(behaviour), vertexId: asVertexId('e'.repeat(32)) },
        ...{ subtaskIndex: 0, inputs: [], outputs: [] },
      },
    ],
  };
}

async function open(host: ThreadSlotHost, name = 'slot', listenPort = 0) {
  const states: AttemptReport[] = [];
  const acks: CheckpointAck[] = [];
  const crashes: Error[] = [];
  const engine = await host.open({
    ...{ slotIndex: 0, name, jobId, listenPort },
    events: {
      taskState: (report) => states.push(report),
      checkpointAck: (ack) => acks.push(ack),
      checkpointDecline: () => {},
      crashed: (_jobId, error) => crashes.push(error),
    },
  });
  return { engine, states, acks, crashes };
}

const running = (slot: { states: AttemptReport[] }) => until('the task runs', () => slot.states.length > 0);

test('an engine in a thread does all that one in process does', async () => {
  const slot = await open(await start(), 'slot', 4_711);
  expect(slot.engine.dataAddress).toEqual({ host: 'me', port: 4_711 });
  await slot.engine.submit(deployment('run'));
  await running(slot);
  await until('counters arrive by themselves', () => slot.engine.attempts()[0]?.io.readRecords === 42);
  slot.engine.triggerCheckpoint({ checkpointId: 3 } as Parameters<SlotRuntimePort['triggerCheckpoint']>[0]);
  await until('an acknowledgement', () => slot.acks.length === 1);
  expect(slot.acks[0]?.operators[0]?.operator[0]?.handle).toEqual({ kind: 'inline', bytes: new Uint8Array([1, 2, 3]) });
  slot.engine.cancel([attemptId]);
  await until('it is canceled', () => slot.states.at(-1)?.state === 'CANCELED');
  await slot.engine.close();
  expect(slot.crashes).toEqual([]);
});

test('spare threads wait with their loading until no slot waits for its thread', async () => {
  const made = vi.spyOn(SlotThread.prototype, 'loaded', 'get');
  const host = await start({ slots: 4, spareThreads: 2 });
  await until('both spares load', () => made.mock.calls.length === 2);
  const opened = [open(host), open(host), open(host)];
  await Promise.any(opened);
  expect(made).toHaveBeenCalledTimes(2);
  await Promise.all(opened);
  await until('one spare for the slot that is free', () => made.mock.calls.length === 3);
  made.mockRestore();
});

test('user code that hangs is ended with its thread; other slots do not notice', async () => {
  const host = await start();
  const [hanging, other] = [await open(host), await open(host)];
  await other.engine.submit(deployment('run'));
  await hanging.engine.submit(deployment('loop'));
  await running(hanging);
  const startedMs = performance.now();
  await hanging.engine.close();
  expect(performance.now() - startedMs).toBeLessThan(10_000);
  expect(hanging.crashes).toEqual([]); // Ended by us is no crash.
  other.engine.cancel([attemptId]);
  await until('the other one reacts', () => other.states.at(-1)?.state === 'CANCELED');
});

test.each([
  ['eat-memory', /out of memory: its heap is limited to 32 MiB/],
  ['grow-state', /out of memory: its heap is limited to 32 MiB/],
  ['exit', /exit code 3/],
  ['throw-later', /x is not a function/],
] as const)('user code that does "%s" crashes its own slot, once, with a clear error', async (behaviour, message) => {
  const host = await start();
  const [bad, other] = [await open(host), await open(host)];
  await other.engine.submit(deployment('run'));
  await bad.engine.submit(deployment(behaviour));
  await until('the crash is reported', () => bad.crashes.length > 0, { timeoutMs: 40_000 });
  expect(bad.crashes).toHaveLength(1);
  expect(bad.crashes[0]?.message).toMatch(message);
  expect(isMillraceError(bad.crashes[0], 'USER_CODE')).toBe(true);
  await bad.engine.close();
  expect(other.crashes).toEqual([]);
  // There is a fresh thread for the next one.
  const next = await open(host);
  await next.engine.submit(deployment('run'));
  await running(next);
});

test('slots of one host reach each other by their addresses, and learn when nobody is there', async () => {
  const host = await start();
  const [one, other] = [await open(host, 'slot-0', 7_001), await open(host, 'slot-1', 7_002)];
  await one.engine.submit(deployment('greet-neighbour'));
  await until('it has greeted', () => one.states.at(-1)?.state === 'FINISHED');
  expect(one.states.at(-1)?.io.readRecords).toBe(2); // Itself and the other one; the third is not there.
  await other.engine.close();
  await one.engine.submit({ ...deployment('greet-neighbour'), deployment: deploymentId(asFencingToken(1n), 2) });
  await until('it has greeted again', () => one.states.filter(({ state }) => state === 'FINISHED').length === 2);
  expect(one.states.at(-1)?.io.readRecords).toBe(1);
});

test('a submission that the engine refuses rejects with its error', async () => {
  const { engine } = await open(await start());
  await expect(engine.submit(deployment('refuse'))).rejects.toMatchObject({ code: 'PROGRAM', hint: 'Fix it.' });
});

test('what is under way when a thread dies is rejected', async () => {
  const { engine, crashes } = await open(await start());
  await engine.submit(deployment('exit'));
  await until('it died', () => crashes.length === 1);
  await expect(engine.submit(deployment('run'))).rejects.toThrow(/exit code 3/);
});

test('an engine that cannot start is an error, not a crash', async () => {
  const host = await start();
  await expect(open(host, 'cannot-listen')).rejects.toMatchObject({ code: 'UNAVAILABLE', message: 'port in use' });
});

test('an entry that does not load is found when the host starts', async () => {
  await expect(start({ workerData: { breakOnLoad: true } })).rejects.toMatchObject({
    code: 'CONFIGURATION',
    message: expect.stringContaining('no such object store'),
  });
  await expect(start({ workerUrl: pathToFileURL(join(folder, 'missing.mjs')) })).rejects.toMatchObject({
    code: 'CONFIGURATION',
  });
});

test('a thread that is still loading is not ended before it has: native modules would end the process', async () => {
  const loaded = await mkdtemp(join(folder, 'slowly-'));
  const host = await start({ workerData: { slowly: { ms: 200, folder: loaded } }, spareThreads: 3, closeGraceMs: 1 });
  await host.close();
  expect(await readdir(loaded)).toHaveLength(3);
});

test('as many threads wait as slots are free, and one when none is', async () => {
  const loaded = await mkdtemp(join(folder, 'spares-'));
  const host = await start({ workerData: { slowly: { ms: 1, folder: loaded } }, spareThreads: 4, slots: 2 });
  const count = async (n: number) => until(`${n} threads`, async () => (await readdir(loaded)).length === n);
  await count(2);
  const first = await open(host, 'first');
  await open(host, 'second');
  await count(3);
  // One of them serves the slot that becomes free, and is there already.
  await first.engine.close();
  await open(host, 'third');
  await count(4);
});

test('a closed host ends all its threads and opens no more', async () => {
  const host = await start({ spareThreads: 2 });
  const slot = await open(host);
  await slot.engine.submit(deployment('loop'));
  await running(slot);
  await host.close();
  await host.close();
  expect(slot.crashes).toEqual([]);
  await expect(open(host)).rejects.toMatchObject({ code: 'CLOSED' });
});
