import type { FastifyInstance } from 'fastify';
import type { TaskManagerView } from '../../contracts/views.ts';
import { NotFoundError } from '../../kernel/errors.ts';
import type { RestDeps } from '../ports.ts';

export function clusterRoutes(app: FastifyInstance, deps: RestDeps): void {
  const { dispatcher, configuration, version } = deps;

  app.get('/overview', async () => {
    const overview = await dispatcher.clusterOverview();
    return {
      taskmanagers: overview.taskManagers,
      'taskmanagers-blocked': 0,
      'slots-total': overview.slotsTotal,
      'slots-available': overview.slotsFree,
      'slots-free-and-blocked': 0,
      'jobs-running': overview.jobsRunning,
      'jobs-finished': overview.jobsFinished,
      'jobs-cancelled': overview.jobsCancelled,
      'jobs-failed': overview.jobsFailed,
      'flink-version': version,
      'flink-commit': 'millrace',
    };
  });

  app.get('/taskmanagers', async () => {
    const nowMs = Date.now();
    return { taskmanagers: (await dispatcher.listTaskManagers()).map((one) => taskManagerJson(one, nowMs)) };
  });

  app.get('/taskmanagers/:taskmanagerid', async (request) => {
    const { taskmanagerid } = request.params as { taskmanagerid: string };
    const found = (await dispatcher.listTaskManagers()).find((one) => one.id === taskmanagerid);
    if (found === undefined) throw new NotFoundError(`No TaskManager "${taskmanagerid}" is registered.`);
    return {
      ...taskManagerJson(found, Date.now()),
      allocatedSlots: found.allocations.map((slot) => ({ index: slot.slotIndex, jobId: slot.jobId })),
    };
  });

  app.get('/jobmanager/config', async () => configuration);
}

function taskManagerJson(view: TaskManagerView, nowMs: number) {
  return {
    id: view.id,
    path: view.rpcAddress,
    dataPort: Number(view.rpcAddress.split(':').at(-1) ?? 0),
    pid: view.pid,
    timeSinceLastHeartbeat: view.lastHeartbeatMs < 0 ? 0 : Math.max(0, nowMs - view.lastHeartbeatMs),
    slotsNumber: view.slotsTotal,
    freeSlots: view.slotsFree,
    assignedTasks: view.allocations.length,
    blocked: false,
    hardware: {
      cpuCores: view.hardware.cpuCores,
      physicalMemory: view.hardware.physicalMemoryBytes,
      freeMemory: view.hardware.freeMemoryBytes,
      managedMemory: 0,
    },
  };
}
