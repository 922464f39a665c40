import type { DataAddress } from '../contracts/task.ts';
import type { SlotReport } from '../contracts/task-manager-gateway.ts';
import type { AllocationId, JobId } from '../kernel/ids.ts';

/**
 * What the leader believes of one slot, and how a worker's word changes it.
 *
 * Invariants:
 *   R1. A slot is given to one request at a time.
 *   R2. A slot is free only when its worker has said so, or never said otherwise.
 *   R3. A report changes nothing that was changed after the report was asked for: it may be older.
 */
export type SlotRecord =
  | { readonly kind: 'free'; readonly changed: number }
  /** `allocateSlot` is under way. */
  | {
      readonly kind: 'allocating';
      readonly allocationId: AllocationId;
      readonly jobId: JobId;
      readonly changed: number;
    }
  | {
      readonly kind: 'allocated';
      readonly allocationId: AllocationId;
      readonly jobId: JobId;
      readonly dataAddress: DataAddress;
      readonly changed: number;
    }
  /** The worker says so, and nobody here asked for it: of a former leader, or an answer that was lost. */
  | {
      readonly kind: 'held';
      readonly allocationId: AllocationId;
      readonly jobId: JobId;
      /** Undefined while the slot starts or ends. */
      readonly dataAddress: DataAddress | undefined;
      readonly sinceMs: number;
      readonly changed: number;
    }
  /** Given back; the worker has not answered yet. */
  | { readonly kind: 'freeing'; readonly allocationId: AllocationId; readonly jobId: JobId; readonly changed: number };

export interface ReportTime {
  /** The number of the last change made before the report was asked for. */
  readonly askedAt: number;
  /** The number of the change that this report makes. */
  readonly change: number;
  readonly nowMs: number;
}

/** The record after the worker's word on the slot. */
export function reconcileSlot(record: SlotRecord, report: SlotReport | undefined, time: ReportTime): SlotRecord {
  if (record.changed > time.askedAt) return record; // R3
  // What is under way decides itself, by its own answer.
  if (record.kind === 'allocating' || record.kind === 'freeing') return record;
  const said = report?.allocation;
  if (said === undefined) return record.kind === 'free' ? record : { kind: 'free', changed: time.change };
  if (record.kind !== 'free' && record.allocationId === said.allocationId) {
    // Found while it started.
    return record.kind === 'held' && record.dataAddress === undefined && said.dataAddress !== undefined
      ? { ...record, dataAddress: said.dataAddress, changed: time.change }
      : record;
  }
  const { allocationId, jobId, dataAddress } = said;
  return { kind: 'held', allocationId, jobId, dataAddress, sinceMs: time.nowMs, changed: time.change };
}
