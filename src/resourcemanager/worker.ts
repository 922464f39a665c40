import type { SlotReport, WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { AllocationId, JobId } from '../kernel/ids.ts';
import type { WorkerConnection, WorkerMonitor } from './worker-monitor.ts';

/**
 * What a slot is to this leader.
 *   free: can be given away.
 *   found: the worker said at registration that it holds an allocation of an earlier term.
 *   taking: an allocation was sent and is not answered yet.
 *   taken: a JobMaster holds it.
 *   freeing: being ended on the worker; free only once the worker says so.
 */
export type SlotState =
  | { readonly kind: 'free' }
  | {
      readonly kind: 'found' | 'taking' | 'taken' | 'freeing';
      readonly allocationId: AllocationId;
      readonly jobId: JobId;
    };

export interface Worker {
  readonly registration: WorkerRegistration;
  readonly connection: WorkerConnection;
  readonly monitor: WorkerMonitor;
  readonly slots: SlotState[];
  lastReport: WorkerReport;
  lastHeartbeatWallMs: number;
}

export function slotsOf(count: number, reports: readonly SlotReport[]): SlotState[] {
  const slots: SlotState[] = Array.from({ length: count }, () => ({ kind: 'free' }));
  for (const { slotIndex, allocation } of reports) {
    if (allocation !== undefined && slotIndex < count) slots[slotIndex] = { kind: 'found', ...allocation };
  }
  return slots;
}
