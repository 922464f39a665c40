import { expect, test } from 'vitest';
import { type AllocationId, asJobId } from '../kernel/ids.ts';
import { emptySlotTable, reportSlots, type SlotEvent, type SlotTable, stepSlotTable } from './slot-table.ts';

const jobA = asJobId('a'.repeat(32));
const jobB = asJobId('b'.repeat(32));
const id = (letter: string) => letter.repeat(32) as AllocationId;
const allocate = (slotIndex: number, letter: string, jobId = jobA): SlotEvent => ({
  kind: 'allocate',
  slotIndex,
  allocationId: id(letter),
  jobId,
});
const free = (letter: string): SlotEvent => ({ kind: 'free', allocationId: id(letter) });
const closed = (slotIndex: number): SlotEvent => ({ kind: 'closed', slotIndex });

function run(slots: number, events: readonly SlotEvent[]): { table: SlotTable; outcomes: string[] } {
  let table = emptySlotTable(slots);
  const outcomes: string[] = [];
  for (const event of events) {
    const step = stepSlotTable(table, event);
    table = step.table;
    outcomes.push(step.outcome.kind);
  }
  return { table, outcomes };
}

test.each<[string, SlotEvent[], string[]]>([
  ['a free slot is allocated', [allocate(0, 'a')], ['allocated']],
  ['the same allocation again changes nothing', [allocate(0, 'a'), allocate(0, 'a')], ['allocated', 'already']],
  ['a slot is one job’s at a time', [allocate(0, 'a'), allocate(0, 'b', jobB)], ['allocated', 'refused']],
  ['an allocation is for one job', [allocate(0, 'a'), allocate(0, 'a', jobB)], ['allocated', 'refused']],
  ['an allocation is one slot’s', [allocate(0, 'a'), allocate(1, 'a')], ['allocated', 'refused']],
  ['a slot that is not there is refused', [allocate(9, 'a')], ['refused']],
  [
    'a slot is free only when its engine has ended',
    [allocate(0, 'a'), free('a'), allocate(0, 'b', jobB), closed(0), allocate(0, 'b', jobB)],
    ['allocated', 'freeing', 'closing', 'freed', 'allocated'],
  ],
  ['freeing twice is one freeing', [allocate(0, 'a'), free('a'), free('a')], ['allocated', 'freeing', 'closing']],
  ['freeing what is not here is nothing', [free('a')], ['unknown']],
  [
    'an allocation that was given back does not come back',
    [allocate(0, 'a'), free('a'), closed(0), allocate(0, 'a')],
    ['allocated', 'freeing', 'freed', 'refused'],
  ],
  ['not even one that had not arrived yet', [free('a'), allocate(0, 'a')], ['unknown', 'refused']],
])('%s', (_name, events, outcomes) => {
  expect(run(2, events).outcomes).toEqual(outcomes);
});

test('a slot that is still closing is reported as held', () => {
  const { table } = run(2, [allocate(0, 'a'), free('a')]);
  expect(reportSlots(table)).toEqual([
    { slotIndex: 0, allocation: { allocationId: id('a'), jobId: jobA } },
    { slotIndex: 1 },
  ]);
});

test('closing a slot that was not given back is a bug', () => {
  expect(() => run(1, [allocate(0, 'a'), closed(0)])).toThrow(/T2/);
});

test('the memory of given back allocations is bounded', () => {
  let table = emptySlotTable(1);
  for (let i = 0; i < 3_000; i++) {
    const allocationId = i.toString(16).padStart(32, '0') as AllocationId;
    table = stepSlotTable(table, { kind: 'free', allocationId }).table;
  }
  expect(table.spent.length).toBeLessThanOrEqual(1_024);
});
