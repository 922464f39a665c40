import { availableParallelism, freemem, hostname, totalmem } from 'node:os';
import { WatchedLeaderRetrieval } from '../../ha/election/leader-retrieval.ts';
import { registerWorker } from '../../ha/election/worker-registrations.ts';
import { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import { jobManagerGatewaySpec } from '../contracts/job-manager-gateway.ts';
import type { HardwareDescription } from '../contracts/task-manager-gateway.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asTaskManagerId } from '../kernel/ids.ts';
import { CloseStack } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { connectGateway } from '../rpc/connect-gateway.ts';
import { RpcServer } from '../rpc/rpc-server.ts';
import { removeLocalCopies } from '../state/local-copies.ts';
import { TaskManager } from '../taskmanager/task-manager.ts';
import { ThreadSlotHost } from '../taskmanager/thread-slot-host.ts';
import { stateConfig } from './config/job-defaults.ts';
import type { Configuration } from './config/options.ts';
import { internalTls, rpcTls } from './internal-tls.ts';
import { objectStoreSettings } from './open-objects.ts';
import { openCoordination, type ProcessDeps } from './open-stores.ts';
import type { SlotWorkerData } from './slot-worker.ts';
import { temporaryDir } from './temporary-dir.ts';
import { untilTold } from './until-told.ts';
import { localCopiesDirectory, scratchDirectory, WorkerDirectory } from './worker-directory.ts';

/** Each takes some 20 MB of resident memory. */
const SPARE_THREADS_MAX = 4;

/** Runs a worker until the process is told to stop; then it says goodbye to the leader and ends its tasks. */
export async function runTaskManager(c: Configuration, log: Logger): Promise<void> {
  const stack = new CloseStack();
  try {
    await startTaskManager(c, log, stack);
    const signal = await untilTold();
    log.info({ signal }, 'taskmanager stopping');
  } finally {
    await stack.close();
  }
  log.info({}, 'taskmanager stopped');
}

async function startTaskManager(c: Configuration, log: Logger, stack: CloseStack): Promise<void> {
  const deps: ProcessDeps = { clock: new SystemClock(), random: new SystemRandom(), log };
  const taskManagerId = asTaskManagerId(c.taskmanagerId ?? `${hostname()}-${process.pid}-${deps.random.hex(3)}`);
  const coordination = await openCoordination(deps, c);
  stack.add('coordination', () => coordination.close());
  const keys = new ClusterKeys(c.clusterId);
  const retrieval = WatchedLeaderRetrieval.start({ ...deps, coordination, keys });
  stack.add('leader retrieval', () => retrieval.close());

  const tls = internalTls(c);
  const directory = await WorkerDirectory.open(temporaryDir(c), deps);
  stack.add('worker directory', () => directory.close());
  const workerData: SlotWorkerData = {
    taskManagerId,
    clusterId: c.clusterId,
    objects: objectStoreSettings(c),
    bundleDir: temporaryDir(c),
    programTimeoutMs: c.programTimeoutMs,
    memoryThresholdBytes: c.memoryThresholdBytes,
    directory: directory.path,
    state: stateConfig(c),
    lmdbCacheBytes: c.lmdbCacheBytes,
    stateBytesMax: c.slotHeapBytes * c.stateHeapFraction,
    compiledChains: c.compiledChains,
    networkCodec: c.networkCodec,
    tls,
    logLevel: c.logLevel,
  };
  const slotHost = await ThreadSlotHost.start(deps, {
    workerUrl: new URL('./slot-worker.js', import.meta.url),
    workerData,
    heapBytes: c.slotHeapBytes,
    scratchDirectory: scratchDirectory(directory.path),
    listenHost: c.taskmanagerBindHost,
    advertisedHost: c.taskmanagerHost,
    // So that a job that comes to this worker, when it lost another, does not wait for code to load.
    slots: c.slots,
    spareThreads: Math.min(SPARE_THREADS_MAX, availableParallelism()),
  });
  // Closed by the TaskManager; by the stack too, for the case that the start fails in between.
  stack.add('slots', () => slotHost.close());
  const rpc = await RpcServer.start({ host: c.taskmanagerBindHost, port: c.taskmanagerRpcPort, log, ...rpcTls(tls) });
  stack.add('rpc', () => rpc.close());

  const rpcAddress = `${c.taskmanagerHost}:${rpc.port}`;
  const taskManager = await TaskManager.start(
    {
      ...deps,
      leaderRetrieval: retrieval,
      connectJobManager: (leader) =>
        connectGateway(jobManagerGatewaySpec, 'jobmanager', leader.rpcAddress, {
          ...deps,
          token: leader.token,
          ...rpcTls(tls),
        }),
      slotHost,
      hardware,
      onJobReleased: (jobId) => removeLocalCopies(localCopiesDirectory(directory.path), jobId),
    },
    {
      taskManagerId,
      rpcAddress,
      dataHost: c.taskmanagerHost,
      dataPort: c.taskmanagerDataPort,
      slots: c.slots,
      pid: process.pid,
      cancellationTimeoutMs: c.cancellationTimeoutMs,
      heartbeatTimeoutMs: c.heartbeatTimeoutMs,
    },
  );
  rpc.serve('taskmanager', taskManagerGatewaySpec, taskManager);
  stack.add('taskmanager', () => taskManager.close());
  const registration = registerWorker({ ...deps, coordination, keys }, { taskManagerId, rpcAddress });
  stack.add('registration', () => registration.close());
  log.info({ taskManagerId, rpcAddress, slots: c.slots }, 'taskmanager started');
}

export function hardware(): HardwareDescription {
  return { cpuCores: availableParallelism(), physicalMemoryBytes: totalmem(), freeMemoryBytes: freemem() };
}
