import type { DataAddress } from '../contracts/task.ts';
import type { SlotReport } from '../contracts/task-manager-gateway.ts';
import { assert, unreachable } from '../kernel/assert.ts';
import type { AllocationId, JobId } from '../kernel/ids.ts';

/**
 * Whose each slot of this worker is, as a pure step function.
 *
 * Invariants:
 *   T1. A slot is one job's or nobody's, and an allocation is one slot's.
 *   T2. A slot is free again only when its engine is gone: two jobs never share a thread.
 *   T3. An allocation that was given back never comes back: a delayed `allocateSlot` must not occupy
 *       a slot that its sender has already given up.
 */
export type SlotState =
  | { readonly kind: 'free' }
  | { readonly kind: 'allocated'; readonly allocationId: AllocationId; readonly jobId: JobId }
  /** Given back; its engine is still ending. */
  | { readonly kind: 'closing'; readonly allocationId: AllocationId; readonly jobId: JobId };

export interface SlotTable {
  readonly slots: readonly SlotState[];
  /** Allocations that were given back, oldest first, bounded (T3). */
  readonly spent: readonly AllocationId[];
}

export type SlotEvent =
  | {
      readonly kind: 'allocate';
      readonly slotIndex: number;
      readonly allocationId: AllocationId;
      readonly jobId: JobId;
    }
  | { readonly kind: 'free'; readonly allocationId: AllocationId }
  | { readonly kind: 'closed'; readonly slotIndex: number };

export type SlotOutcome =
  | { readonly kind: 'allocated' }
  | { readonly kind: 'already' }
  /** Ask again once the slot's engine has ended. */
  | { readonly kind: 'closing'; readonly slotIndex: number }
  | { readonly kind: 'refused'; readonly reason: string }
  /** The caller ends the engine, then reports `closed`. */
  | { readonly kind: 'freeing'; readonly slotIndex: number }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'freed' };

export interface SlotStep {
  readonly table: SlotTable;
  readonly outcome: SlotOutcome;
}

const FREE: SlotState = { kind: 'free' };
const SPENT_MAX = 1_024;

export function emptySlotTable(slots: number): SlotTable {
  return { slots: Array.from({ length: slots }, () => FREE), spent: [] };
}

export function stepSlotTable(table: SlotTable, event: SlotEvent): SlotStep {
  switch (event.kind) {
    case 'allocate':
      return allocate(table, event);
    case 'free':
      return free(table, event.allocationId);
    case 'closed':
      assert(table.slots[event.slotIndex]?.kind === 'closing', 'T2: only a closing slot becomes free');
      return { table: withSlot(table, event.slotIndex, FREE), outcome: { kind: 'freed' } };
    default:
      return unreachable(event);
  }
}

export function slotOf(table: SlotTable, allocationId: AllocationId): number | undefined {
  const index = table.slots.findIndex((slot) => slot.kind !== 'free' && slot.allocationId === allocationId);
  return index < 0 ? undefined : index;
}

/** A closing slot is still reported as its job's: it cannot be used yet. */
export function reportSlots(
  table: SlotTable,
  addressOf: (slotIndex: number) => DataAddress | undefined = () => undefined,
): SlotReport[] {
  return table.slots.map((slot, slotIndex) => {
    if (slot.kind === 'free') return { slotIndex };
    const { allocationId, jobId } = slot;
    const dataAddress = slot.kind === 'allocated' ? addressOf(slotIndex) : undefined;
    return { slotIndex, allocation: { allocationId, jobId, ...(dataAddress === undefined ? {} : { dataAddress }) } };
  });
}

function allocate(table: SlotTable, event: Extract<SlotEvent, { kind: 'allocate' }>): SlotStep {
  const { slotIndex, allocationId, jobId } = event;
  const refused = (reason: string): SlotStep => ({ table, outcome: { kind: 'refused', reason } });
  const slot = table.slots[slotIndex];
  if (slot === undefined) return refused(`there is no slot ${slotIndex}: this worker has ${table.slots.length}`);
  if (table.spent.includes(allocationId)) return refused('this allocation was given back'); // T3
  const elsewhere = slotOf(table, allocationId);
  if (elsewhere !== undefined && elsewhere !== slotIndex)
    return refused(`this allocation already has slot ${elsewhere}`); // T1
  if (slot.kind === 'closing') return { table, outcome: { kind: 'closing', slotIndex } };
  if (slot.kind === 'allocated') {
    if (slot.allocationId === allocationId && slot.jobId === jobId) return { table, outcome: { kind: 'already' } };
    return refused(`slot ${slotIndex} is held by allocation ${slot.allocationId} of job ${slot.jobId}`);
  }
  const next = withSlot(table, slotIndex, { kind: 'allocated', allocationId, jobId });
  return { table: next, outcome: { kind: 'allocated' } };
}

function free(table: SlotTable, allocationId: AllocationId): SlotStep {
  // Also when it was never here: the allocation may still be on its way (T3).
  const spent = table.spent.includes(allocationId) ? table.spent : [...table.spent, allocationId].slice(-SPENT_MAX);
  const slotIndex = slotOf(table, allocationId);
  const slot = slotIndex === undefined ? undefined : table.slots[slotIndex];
  if (slotIndex === undefined || slot === undefined || slot.kind === 'free')
    return { table: { ...table, spent }, outcome: { kind: 'unknown' } };
  if (slot.kind === 'closing') return { table, outcome: { kind: 'closing', slotIndex } };
  const next = withSlot({ ...table, spent }, slotIndex, { ...slot, kind: 'closing' });
  return { table: next, outcome: { kind: 'freeing', slotIndex } };
}

function withSlot(table: SlotTable, slotIndex: number, slot: SlotState): SlotTable {
  return { ...table, slots: table.slots.map((old, index) => (index === slotIndex ? slot : old)) };
}
