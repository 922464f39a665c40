import { expect, test } from 'vitest';
import { asJobId, asTaskManagerId } from '../kernel/ids.ts';
import { type FreeSlot, matchSlots, type WaitingRequest } from './match-slots.ts';

const job = (n: number) => asJobId(String(n).padStart(32, '0'));
const tm = (name: string) => asTaskManagerId(name);

let nextId = 0;
function request(n: number, count: number, extra: Partial<WaitingRequest> = {}): WaitingRequest {
  return { id: nextId++, jobId: job(n), count, priority: 0, waitingSinceMs: 0, ...extra };
}

/** `{ a: 2 }`: worker a has slots 0 and 1 free. */
function free(slots: Record<string, number>): FreeSlot[] {
  return Object.entries(slots).flatMap(([name, count]) =>
    Array.from({ length: count }, (_, slotIndex) => ({ taskManagerId: tm(name), slotIndex })),
  );
}

function match(
  waiting: WaitingRequest[],
  slots: FreeSlot[],
  totals: Record<string, number>,
  options: { spreadOut?: boolean; nowMs?: number } = {},
) {
  const slotsOfWorker = new Map(Object.entries(totals).map(([name, count]) => [tm(name), count]));
  const matches = matchSlots(waiting, slots, {
    nowMs: 0,
    patienceMs: 1_000,
    spreadOut: true,
    slotsOfWorker,
    ...options,
  });
  return Object.fromEntries(
    matches.map(({ request: { jobId }, slots: got }) => [
      Number(jobId),
      got.map(({ taskManagerId, slotIndex }) => `${taskManagerId}${slotIndex}`).sort(),
    ]),
  );
}

test('a job gets all the slots it needs or none', () => {
  expect(match([request(1, 3)], free({ a: 2 }), { a: 2 })).toEqual({});
  expect(match([request(1, 2)], free({ a: 2 }), { a: 2 })).toEqual({ 1: ['a0', 'a1'] });
});

test('the waiting job of highest utility is served first: priority, then waiting time', () => {
  const slots = free({ a: 1 });
  const old = request(1, 1, { waitingSinceMs: 0 });
  const young = request(2, 1, { waitingSinceMs: 5 });
  const important = request(3, 1, { waitingSinceMs: 9, priority: 1 });
  expect(match([young, old], slots, { a: 1 })).toEqual({ 1: ['a0'] });
  expect(match([young, old, important], slots, { a: 1 })).toEqual({ 3: ['a0'] });
});

test('a job that does not fit is passed over, so that a smaller one may run', () => {
  expect(match([request(1, 3), request(2, 2)], free({ a: 2 }), { a: 4 })).toEqual({ 2: ['a0', 'a1'] });
});

test('small jobs do not starve a large one for ever: after its patience what becomes free is kept for it', () => {
  const large = request(1, 3, { waitingSinceMs: 0 });
  const small = request(2, 1, { waitingSinceMs: 900 });
  expect(match([large, small], free({ a: 2 }), { a: 4 }, { nowMs: 999 })).toEqual({ 2: ['a0'] });
  expect(match([large, small], free({ a: 2 }), { a: 4 }, { nowMs: 1_000 })).toEqual({});
  expect(match([large, small], free({ a: 4 }), { a: 4 }, { nowMs: 1_000 })).toEqual({
    1: ['a0', 'a1', 'a2'],
    2: ['a3'],
  });
});

test('a job that can never fit keeps nothing from the others, however long it waits', () => {
  const impossible = request(1, 9, { waitingSinceMs: 0 });
  expect(match([impossible, request(2, 1)], free({ a: 2 }), { a: 2 }, { nowMs: 99_999 })).toEqual({ 2: ['a0'] });
});

test('spread out: slots come from the workers that are used least', () => {
  expect(match([request(1, 2)], free({ a: 2, b: 2 }), { a: 2, b: 2 })).toEqual({ 1: ['a0', 'b0'] });
  // a has 3 of 4 slots in use, b none of 2.
  expect(match([request(1, 2)], free({ a: 1, b: 2 }), { a: 4, b: 2 })).toEqual({ 1: ['b0', 'b1'] });
});

test('filling: as few workers as possible', () => {
  const fill = { spreadOut: false };
  expect(match([request(1, 2)], free({ a: 1, b: 3, c: 2 }), { a: 1, b: 3, c: 2 }, fill)).toEqual({ 1: ['c0', 'c1'] });
  expect(match([request(1, 4)], free({ a: 1, b: 3, c: 2 }), { a: 1, b: 3, c: 2 }, fill)).toEqual({
    1: ['a0', 'b0', 'b1', 'b2'],
  });
});

test('tasks 1->2->3 and 1->4 on two nodes: no node holds more than its slots, and no slot is used that need not be', () => {
  // Four tasks without slot sharing: every slot of both nodes. With sharing the chain needs one slot only.
  const nodes = { a: 2, b: 2 };
  expect(match([request(1, 4)], free(nodes), nodes)).toEqual({ 1: ['a0', 'a1', 'b0', 'b1'] });
  expect(match([request(1, 1)], free(nodes), nodes, { spreadOut: false })).toEqual({ 1: ['a0'] });
  expect(match([request(1, 5)], free(nodes), nodes)).toEqual({});
});

test('no slot is given out twice in one round', () => {
  const waiting = [request(1, 2), request(2, 2), request(3, 1)];
  const result = match(waiting, free({ a: 3, b: 2 }), { a: 3, b: 2 });
  const given = Object.values(result).flat();
  expect(given).toHaveLength(5);
  expect(new Set(given).size).toBe(5);
});
