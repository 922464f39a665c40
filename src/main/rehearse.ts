import { jobManagerGatewaySpec, type WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { ExecutionState } from '../contracts/job-status.ts';
import { taskManagerGatewaySpec } from '../contracts/task-manager-gateway.ts';
import { type AttemptReport, NO_IO } from '../contracts/task.ts';
import {
  asAllocationId,
  asFencingToken,
  asJobId,
  asTaskManagerId,
  asVertexId,
  type AttemptId,
  deploymentId,
} from '../kernel/ids.ts';

/**
 * What a new leader hears and says first, checked once by a standby that has time: a schema is compiled when it is first
 * used, and all those of a takeover take a tenth of a second. Says how many it was.
 */
export function rehearseTakeover(): number {
  const { report } = REGISTRATION;
  const { jobId, deployment, attemptId, allocationId } = ATTEMPT;
  const checkpointId = 1;
  const manager = jobManagerGatewaySpec;
  const worker = taskManagerGatewaySpec;
  const checks = [
    manager.registerTaskManager.request.safeParse(REGISTRATION),
    manager.registerTaskManager.response.safeParse({ heartbeatIntervalMs: 1, heartbeatTimeoutMs: 1 }),
    manager.updateTaskState.request.safeParse(ATTEMPT),
    worker.heartbeat.request.safeParse({}),
    worker.heartbeat.response.safeParse(report),
    worker.notifyCheckpointComplete.request.safeParse({ jobId, deployment, checkpointId }),
    worker.notifyCheckpointAborted.request.safeParse({ jobId, deployment, checkpointId, andOlder: true }),
    worker.cancelTasks.request.safeParse({ jobId, attemptIds: [attemptId] }),
    worker.allocateSlot.request.safeParse({ slotIndex: 0, allocationId, jobId }),
    worker.freeSlot.request.safeParse({ allocationId, reason: 'rehearsal' }),
  ];
  return checks.filter(({ success }) => success).length;
}

const hex = (digit: string) => digit.repeat(32);
const RUNNING: ExecutionState = 'RUNNING';
const ATTEMPT: AttemptReport = {
  jobId: asJobId(hex('1')),
  deployment: deploymentId(asFencingToken(1n), 1),
  vertexId: asVertexId(hex('2')),
  subtaskIndex: 0,
  attemptId: hex('3') as AttemptId,
  attemptNumber: 0,
  allocationId: asAllocationId(hex('4')),
  state: RUNNING,
  endOfData: false,
  io: NO_IO,
};
const dataAddress = { host: '127.0.0.1', port: 1 };
const REGISTRATION: WorkerRegistration = {
  taskManagerId: asTaskManagerId('rehearsal'),
  rpcAddress: '127.0.0.1:1',
  dataHost: '127.0.0.1',
  slots: 1,
  hardware: { cpuCores: 1, physicalMemoryBytes: 1, freeMemoryBytes: 1 },
  pid: 1,
  report: {
    taskManagerId: asTaskManagerId('rehearsal'),
    slots: [
      { slotIndex: 0, allocation: { allocationId: ATTEMPT.allocationId, jobId: ATTEMPT.jobId, dataAddress } },
      { slotIndex: 1 },
    ],
    attempts: [ATTEMPT],
    freeMemoryBytes: 1,
  },
};
