import { WatchedLeaderRetrieval } from '../../ha/election/leader-retrieval.ts';
import { jobManagerGatewaySpec } from '../../src/contracts/job-manager-gateway.ts';
import type { TaskManagerHandler } from '../../src/contracts/task-manager-gateway.ts';
import type { AttemptReport } from '../../src/contracts/task.ts';
import { asFencingToken, asTaskManagerId, type FencingToken } from '../../src/kernel/ids.ts';
import { createStateBackends } from '../../src/state/state-backends.ts';
import { TaskManager } from '../../src/taskmanager/task-manager.ts';
import { SimSlotHost } from './engine/sim-slot-engine.ts';
import { SimCoordination } from './sim-coordination.ts';
import { SimObjects } from './sim-objects.ts';
import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

/** Between healing and the time when all that was asked of jobs is done. */
const SLOW_MS = 300;

export interface WorkerIdentity {
  readonly taskManagerId: string;
  readonly port: number;
  readonly pid: number;
}

/** A worker process, wired as `src/main/run-taskmanager.ts` wires one, with small engines in its slots. */
export class SimWorker {
  private constructor(
    readonly process: SimProcess,
    readonly identity: WorkerIdentity,
    private readonly taskManager: TaskManager,
    private readonly slotHost: SimSlotHost,
    private readonly closers: (() => Promise<void>)[],
  ) {}

  static async start(world: SimWorld, host: string, identity: WorkerIdentity): Promise<SimWorker> {
    const { config, network } = world;
    const process = world.spawn(host);
    const { clock, random, log } = process;
    const deps = { clock, random, log };
    const coordination = new SimCoordination(process, world.etcd, config.etcdDeadlineMs);
    const objects = new SimObjects(process, world.objects, (one, call) => world.objectFate(one, call));
    const retrieval = WatchedLeaderRetrieval.start({ ...deps, coordination, keys: world.keys });
    retrieval.subscribe((leader) => world.tell('leaderSeen', process.name, leader?.token));
    const stateBackends = createStateBackends(
      { objects, clock, yieldNow: () => Promise.resolve() },
      {
        memoryThresholdBytes: config.memoryThresholdBytes,
        incremental: config.incremental,
        objectPrefix: (jobId) => world.keys.stateObjectPrefix(jobId),
      },
    );
    const slotHost = new SimSlotHost({
      ...{ process, plane: world.plane, stateBackends },
      world: { output: world.output, fate: (one) => worldFate(world, one) },
      recordsAtOnce: () => (world.hurry ? 8 : world.healed ? 1 : 1 + random.int(3)),
      recordMs: () => (world.hurry ? 2 : world.healed ? SLOW_MS : config.recordMs * (0.5 + random.next())),
      startFate: () => ({ delayMs: 5 * random.next(), fails: !world.healed && random.next() < 0.005 }),
      observe: {
        opened: (...sighting) => world.tell('engineOpened', ...sighting),
        closed: (...sighting) => world.tell('engineClosed', ...sighting),
        started: (...sighting) => world.tell('taskStarted', ...sighting),
        acked: (...sighting) => world.tell('checkpointAcked', ...sighting),
        aborted: (...sighting) => world.tell('checkpointAborted', ...sighting),
      },
    });
    process.onDeath(() => world.tell('workerDied', process.name));
    const rpcAddress = `${host}:${identity.port}`;
    const starting = TaskManager.start(
      {
        ...{ ...deps, leaderRetrieval: retrieval, slotHost },
        connectJobManager: (leader) =>
          network.connect(jobManagerGatewaySpec, 'jobmanager', process, leader.rpcAddress, leader.token),
        hardware: () => ({ cpuCores: 2, physicalMemoryBytes: 1e9, freeMemoryBytes: 5e8 }),
      },
      {
        ...{ taskManagerId: asTaskManagerId(identity.taskManagerId), rpcAddress, dataHost: host, pid: identity.pid },
        ...{ slots: config.slots, cancellationTimeoutMs: config.cancelTimeoutMs },
        heartbeatTimeoutMs: config.heartbeatTimeoutMs,
      },
    );
    const taskManager = await starting;
    network.listen(rpcAddress, process, 'taskmanager', observed(world, process, taskManager));
    return new SimWorker(process, identity, taskManager, slotHost, [
      () => taskManager.close(),
      () => retrieval.close(),
      () => coordination.close(),
    ]);
  }

  /** As on SIGTERM. */
  async stop(): Promise<void> {
    for (const close of this.closers) await close();
    this.process.crash('it has stopped');
  }

  get registeredWith(): FencingToken | undefined {
    return this.taskManager.registeredWith;
  }

  live(): readonly AttemptReport[] {
    return this.process.dead ? [] : this.slotHost.live();
  }
}

function worldFate(world: SimWorld, process: SimProcess) {
  const { random, config, network } = world;
  const delayMs = 1 + 3 * random.next();
  if (network.isCut(process.host, 's3')) return { delayMs: 50, lost: 'before' as const };
  if (world.healed || random.next() >= config.worldErrorChance) return { delayMs, lost: 'no' as const };
  return { delayMs, lost: random.next() < 0.5 ? ('before' as const) : ('after' as const) };
}

/** The worker's handler, seen by the checkers: which calls it obeyed. */
function observed(world: SimWorld, process: SimProcess, handler: TaskManagerHandler): TaskManagerHandler {
  let highest = asFencingToken(0n);
  const wrap = (method: keyof TaskManagerHandler) => async (request: never, token: FencingToken) => {
    const before = highest;
    const response = await (handler[method] as (request: never, token: FencingToken) => Promise<unknown>)(
      request,
      token,
    );
    world.tell('workerObeyed', { worker: process.name, method, token, highest: before, request });
    if (token > highest) highest = token;
    return response;
  };
  const methods: readonly (keyof TaskManagerHandler)[] = [
    ...(['allocateSlot', 'freeSlot', 'submitTasks', 'cancelTasks', 'triggerCheckpoint'] as const),
    ...(['notifyCheckpointComplete', 'notifyCheckpointAborted', 'releaseJob', 'heartbeat'] as const),
  ];
  return Object.fromEntries(methods.map((method) => [method, wrap(method)])) as unknown as TaskManagerHandler;
}
