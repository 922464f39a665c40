import { afterEach, expect, test } from 'vitest';
import { jobManagerGatewaySpec } from '../contracts/job-manager-gateway.ts';
import type { Slot, WorkerEvent } from '../contracts/slots.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asJobId, asTaskManagerId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { ResourceManager } from '../resourcemanager/resource-manager.ts';
import { TaskManager } from '../taskmanager/task-manager.ts';
import { FakeSlotHost } from '../taskmanager/testing/fake-engine.ts';
import { FakeLeader, FakeRetrieval } from '../taskmanager/testing/fake-leader.ts';
import { until } from '../../test-support/until.ts';
import { connectGateway } from './connect-gateway.ts';
import { RpcServer } from './rpc-server.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
const jobId = asJobId('1'.repeat(32));
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A leader's ResourceManager behind a real RPC server. */
async function leader(tokenNumber: number) {
  const { token } = new FakeLeader(tokenNumber);
  const resources = new ResourceManager(
    {
      ...deps,
      connectTaskManager: (address) =>
        connectGateway(taskManagerGatewaySpec, 'taskmanager', address, { ...deps, token }),
    },
    { token, heartbeatIntervalMs: 200, heartbeatTimeoutMs: 60_000, spreadOut: true },
  );
  const events: WorkerEvent[] = [];
  resources.subscribe((event) => events.push(event));
  const server = await RpcServer.start({ host: '127.0.0.1', port: 0, log: silentLogger, limits: { drainMs: 0 } });
  server.serve('jobmanager', jobManagerGatewaySpec, {
    registerTaskManager: (request, callToken) => resources.registerTaskManager(request, callToken),
    disconnectTaskManager: (request, callToken) => resources.disconnectTaskManager(request, callToken),
    updateTaskState: async () => ({ known: true }),
    acknowledgeCheckpoint: async () => ({}),
    declineCheckpoint: async () => ({}),
  });
  closers.push(
    () => server.close(),
    () => resources.close(),
  );
  const info = { ...new FakeLeader(tokenNumber).info, rpcAddress: `127.0.0.1:${server.port}` };
  return { resources, events, server, info };
}

async function worker(retrieval: FakeRetrieval, name: string) {
  const server = await RpcServer.start({ host: '127.0.0.1', port: 0, log: silentLogger, limits: { drainMs: 0 } });
  const taskManager = await TaskManager.start(
    {
      ...deps,
      leaderRetrieval: retrieval,
      connectJobManager: ({ rpcAddress, token }) =>
        connectGateway(jobManagerGatewaySpec, 'jobmanager', rpcAddress, { ...deps, token }),
      slotHost: new FakeSlotHost(),
      hardware: () => ({ cpuCores: 1, physicalMemoryBytes: 1, freeMemoryBytes: 1 }),
    },
    {
      ...{ taskManagerId: asTaskManagerId(name), rpcAddress: `127.0.0.1:${server.port}`, dataHost: '127.0.0.1' },
      ...{ slots: 2, pid: 1, cancellationTimeoutMs: 1_000, heartbeatTimeoutMs: 60_000 },
    },
  );
  server.serve('taskmanager', taskManagerGatewaySpec, taskManager);
  closers.push(
    () => server.close(),
    () => taskManager.close(),
  );
  return { server, taskManager };
}

function request(resources: ResourceManager, count: number): Promise<readonly Slot[]> {
  const { signal } = new AbortController();
  return resources.requestSlots({ jobId, count, priority: 0, timeoutMs: 10_000, signal, onWaiting: () => {} });
}

test('over the network: workers register, give slots, are lost at once when they die, and follow the next leader', async () => {
  const first = await leader(3);
  const retrieval = new FakeRetrieval();
  retrieval.sayInfo(first.info);
  const ofA = new FakeRetrieval();
  ofA.sayInfo(first.info);
  const a = await worker(ofA, 'a');
  const b = await worker(retrieval, 'b');
  await until('both are registered', () => first.resources.totals().taskManagers === 2);
  const slots = await request(first.resources, 4);
  expect(new Set(slots.map(({ taskManagerId }) => taskManagerId))).toEqual(new Set(['a', 'b']));
  await until('heartbeats report the slots', () =>
    first.events.some(
      (event) => event.kind === 'reported' && event.report.slots.every((slot) => slot.allocation !== undefined),
    ),
  );

  // As a killed process: its connections break, and nobody listens any more. (Slow only on a busy machine.)
  const killedMs = deps.clock.nowMs();
  await a.server.close();
  const lost = await until('a is lost', () => first.events.find((event) => event.kind === 'lost'));
  expect(lost).toMatchObject({ taskManagerId: 'a', reason: expect.stringContaining('refused') });
  expect(deps.clock.nowMs() - killedMs).toBeLessThan(5_000);

  const second = await leader(4);
  retrieval.sayInfo(second.info);
  const registered = await until('b follows', () => second.events.find((event) => event.kind === 'registered'));
  expect(registered).toMatchObject({
    taskManagerId: 'b',
    report: { slots: [{ allocation: { jobId } }, { allocation: { jobId } }] },
  });
  // What the old leader still says is refused by the worker.
  const ofB = slots.find(({ taskManagerId }) => taskManagerId === 'b');
  await expect(ofB?.gateway.heartbeat({})).rejects.toMatchObject({ code: 'FENCED' });
  await second.resources.releaseJob(jobId);
  expect(second.resources.totals()).toEqual({ taskManagers: 1, slotsTotal: 2, slotsFree: 2 });
  await b.taskManager.close();
  await until('b has said goodbye', () => second.resources.totals().taskManagers === 0);
});
