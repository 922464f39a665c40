import fc from 'fast-check';
import { expect, test } from 'vitest';
import { keyGroupForCanonical } from './key-group-hash.ts';
import { KeySlots } from './key-slots.ts';

const GROUPS = 4;
const RANGE = { first: 0, last: GROUPS - 1 };

function heldSlot(slots: KeySlots, key: string | number): number {
  const slot = slots.slotOf(key);
  slots.hold(slot);
  return slot;
}

/** Keys that come and go by the thousand, with columns that hold them and views that pin their groups. */
const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('hold' as const), from: fc.nat(6_000), keys: fc.integer({ min: 1, max: 2_500 }) }),
    fc.record({ kind: fc.constant('release' as const), holding: fc.nat(20) }),
    fc.record({ kind: fc.constant('view' as const), group: fc.nat(GROUPS - 1) }),
    fc.record({ kind: fc.constant('end' as const), view: fc.nat(20) }),
  ),
  { maxLength: 40 },
);

test('a key keeps its slot while somebody holds it, and a view finds its group as it was', () => {
  fc.assert(
    fc.property(steps, (history) => {
      const slots = new KeySlots(RANGE, GROUPS);
      const holdings: { readonly key: string; readonly slot: number }[][] = [];
      const views: { readonly group: number; readonly list: readonly number[]; readonly keys: readonly unknown[] }[] =
        [];
      for (const step of history) {
        if (step.kind === 'hold') {
          const holding = Array.from({ length: step.keys }, (_, n) => {
            const key = `key ${step.from + n}`;
            return { key, slot: heldSlot(slots, key) };
          });
          holdings.push(holding);
        } else if (step.kind === 'release') {
          const [gone] = holdings.splice(step.holding % Math.max(1, holdings.length), 1);
          for (const { slot } of gone ?? []) slots.release(slot);
          slots.columnGone();
        } else if (step.kind === 'view') {
          const list = [...slots.list(step.group)];
          slots.viewBegins(step.group);
          views.push({ group: step.group, list, keys: list.map((slot) => slots.keyOf(slot)) });
        } else {
          const [ended] = views.splice(step.view % Math.max(1, views.length), 1);
          if (ended !== undefined) slots.viewEnds(ended.group);
        }
        const held = new Map<number, string>();
        for (const { key, slot } of holdings.flat()) {
          if ((held.get(slot) ?? key) !== key) expect.fail(`slot ${slot} is of '${key}' and of '${held.get(slot)}'`);
          held.set(slot, key);
        }
        for (const [slot, key] of held) {
          if (slots.find(key) !== slot || slots.keyOf(slot) !== key) expect.fail(`'${key}' has lost its slot ${slot}`);
          if (slots.groupOf(slot) !== keyGroupForCanonical(key, GROUPS)) expect.fail(`'${key}' is in another group`);
        }
        for (const { group, list, keys } of views) {
          const now = slots.list(group);
          if (list.some((slot, at) => now[at] !== slot)) expect.fail('slots of a viewed group have moved');
          if (list.some((slot, at) => slots.keyOf(slot) !== keys[at])) expect.fail('keys of a viewed group have gone');
        }
        const listed = new Set([0, 1, 2, 3].flatMap((group) => slots.list(group)));

        for (const slot of held.keys()) if (!listed.has(slot)) expect.fail('a held slot is in no list');
      }
    }),
    { numRuns: Number(process.env.MILLRACE_PROPERTY_RUNS ?? 20), seed: 3 },
  );
});

test('keys that nobody holds any more are let go of while others come', () => {
  const slots = new KeySlots(RANGE, GROUPS);
  const oneEver = slots.slotOf('ever');
  slots.hold(oneEver);
  for (let window = 0; window < 40; window++) {
    const held = Array.from({ length: 3_000 }, (_, n) => heldSlot(slots, `${window}: ${n}`));
    for (const slot of held) slots.release(slot);
    slots.columnGone();
  }
  const listed = [0, 1, 2, 3].reduce((sum, group) => sum + slots.list(group).length, 0);
  // A window's keys and those of the one before, at most.
  expect(listed).toBeLessThan(7_000);
  expect(slots.find('ever')).toBe(oneEver);
});

test('when nobody holds anything, many keys go at once', () => {
  const slots = new KeySlots(RANGE, GROUPS);
  const held = Array.from({ length: 20_000 }, (_, n) => heldSlot(slots, n));
  expect(slots.estimatedBytes).toBeGreaterThan(1_000_000);
  for (const slot of held) slots.release(slot);
  slots.columnGone();
  expect(slots.estimatedBytes).toBe(0);
  expect(slots.find(7)).toBeUndefined();
});
