import { expect, test } from 'vitest';
import type { AllocationId } from '../kernel/ids.ts';
import { asJobId } from '../kernel/ids.ts';
import { reconcileSlot, type SlotRecord } from './slot-records.ts';

const jobId = asJobId('1'.repeat(32));
const A = 'a'.repeat(32) as AllocationId;
const B = 'b'.repeat(32) as AllocationId;
const dataAddress = { host: 'h', port: 1 };
const time = { askedAt: 10, change: 11, nowMs: 500 };

const says = (allocationId?: AllocationId) => ({
  slotIndex: 0,
  ...(allocationId === undefined ? {} : { allocation: { allocationId, jobId, dataAddress } }),
});
const free: SlotRecord = { kind: 'free', changed: 1 };
const allocated: SlotRecord = { kind: 'allocated', allocationId: A, jobId, dataAddress, changed: 1 };
const held: SlotRecord = { kind: 'held', allocationId: A, jobId, dataAddress, sinceMs: 3, changed: 1 };
const allocating: SlotRecord = { kind: 'allocating', allocationId: A, jobId, changed: 1 };
const freeing: SlotRecord = { kind: 'freeing', allocationId: A, jobId, changed: 1 };

test.each<[string, SlotRecord, AllocationId | undefined, SlotRecord]>([
  ['free and said to be free stays free', free, undefined, free],
  ['free but said to be held becomes held', free, A, { ...held, sinceMs: 500, changed: 11 }],
  ['allocated and said so stays', allocated, A, allocated],
  ['allocated but said to be free is free', allocated, undefined, { kind: 'free', changed: 11 }],
  ['allocated but said to be another’s is held', allocated, B, { ...held, allocationId: B, sinceMs: 500, changed: 11 }],
  ['held keeps since when', held, A, held],
  ['held while it starts, and now ready', { ...held, dataAddress: undefined }, A, { ...held, changed: 11 }],
  ['held and let go by the worker is free', held, undefined, { kind: 'free', changed: 11 }],
  ['an allocation under way decides itself', allocating, undefined, allocating],
  ['a release under way decides itself', freeing, A, freeing],
])('a worker’s word: %s', (_name, before, allocation, after) => {
  expect(reconcileSlot(before, says(allocation), time)).toEqual(after);
});

test('a report that was asked for before the last change changes nothing', () => {
  const newer: SlotRecord = { ...allocated, changed: 11 };
  expect(reconcileSlot(newer, says(), time)).toBe(newer);
});
