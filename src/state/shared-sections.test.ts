import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { StateHandle } from '../contracts/state-handles.ts';
import type { Digest } from '../kernel/ids.ts';
import { handlesOf, objectsToRewrite, type Section, SharedSections } from './shared-sections.ts';

const RANGE = { first: 10, last: 13 };

function object(key: string, size = 400): StateHandle {
  return { kind: 'object', key, size, digest: 'd'.repeat(64) as Digest };
}

function section(handle: StateHandle, slot: number, bytes = 100): Section {
  return {
    handle,
    start: slot * 100,
    end: slot * 100 + bytes,
    usefulBytes: handle.kind === 'object' ? handle.size : bytes,
  };
}

const shared = () => new SharedSections((key) => key.startsWith('shared/'));
const whole = (key: string) => [0, 1, 2, 3].map((slot) => section(object(key), slot));

test('nothing is referred to before a checkpoint is known to be completed', () => {
  const sections = shared();
  const first = sections.begin(1, 0);
  first.written(whole('shared/a'));
  expect(sections.begin(2, 2).referable(0)).toBeUndefined();
  sections.aborted(2);
  sections.completed(1);
  const third = sections.begin(3, 4);
  expect(third.referable(0)).toMatchObject({ handle: { key: 'shared/a' } });
  expect(third.baseCut).toBe(0);
});

test('a snapshot refers to what lies before one in between only if that one refers to it too, or was aborted', () => {
  for (const ending of ['aborted', 'failed'] as const) {
    const sections = shared();
    sections.begin(1, 0).written(whole('shared/a'));
    sections.completed(1);
    const between = sections.begin(2, 2);
    const later = sections.begin(3, 4);
    // It may yet decide to write group 0 anew, complete, and leave the object of checkpoint 1 to be deleted.
    expect(later.referable(0)).toBeUndefined();
    between.referred(0);
    expect(later.referable(0)).toBeDefined();
    expect(later.referable(1)).toBeUndefined();
    if (ending === 'failed') between.failed();
    else sections.aborted(2);
    expect(sections.begin(4, 6).referable(1)).toBeUndefined(); // Checkpoint 3 is still open.
    sections.aborted(3);
    expect(sections.begin(5, 8).referable(1)).toBeUndefined(); // And now 4.
    sections.aborted(4);
    sections.aborted(5);
    expect(sections.begin(6, 10).referable(1)).toBeDefined();
  }
});

test('a notice of completion makes older ones, and notices of them that come later, moot', () => {
  const sections = shared();
  sections.begin(1, 0).written(whole('shared/a'));
  sections.begin(2, 2).written(whole('shared/b'));
  sections.completed(2);
  sections.completed(1);
  expect(sections.begin(3, 4).referable(2)).toMatchObject({ handle: { key: 'shared/b' } });
});

test('a completed checkpoint that is not known here takes the base away: what it does not hold may go', () => {
  const sections = shared();
  sections.begin(1, 0).written(whole('shared/a'));
  sections.completed(1);
  // The base itself, announced again by a new leader, is no news.
  sections.completed(1);
  const doubtful = sections.begin(2, 2);
  doubtful.written(whole('shared/b'));
  sections.aborted(2);
  expect(sections.begin(3, 4).referable(0)).toBeDefined();
  // Its pointer had been written after all.
  sections.completed(2);
  const next = sections.begin(4, 6);
  expect(next.referable(0)).toBeUndefined();
  next.written(whole('shared/d'));
  sections.completed(4);
  expect(sections.begin(5, 8).referable(0)).toMatchObject({ handle: { key: 'shared/d' } });
});

test('a savepoint that completes takes no base away, and a full checkpoint refers to none', () => {
  const sections = shared();
  sections.begin(1, 0).written(whole('shared/a'));
  sections.completed(1);
  sections.beginSavepoint(2);
  sections.completed(2);
  expect(sections.begin(3, 4).referable(0)).toBeDefined();
  sections.aborted(3);
  const full = sections.begin(4, 6, { full: true });
  expect([0, 1, 2, 3].map((group) => full.referable(group))).toEqual([undefined, undefined, undefined, undefined]);
  full.written(whole('shared/b'));
  sections.completed(4);
  expect(sections.begin(5, 8).referable(0)).toMatchObject({ handle: { key: 'shared/b' } });
});

test('what was restored is referred to when it is in shared objects of the job; a savepoint or inline bytes never', () => {
  const handles = (handle: StateHandle) => [
    { firstKeyGroup: 8, lastKeyGroup: 12, offsets: [0, 10, 20, 20, 40, 50], handle },
  ];
  const sections = shared();
  sections.restored(RANGE, 0, handles(object('shared/a')), 1);
  const plan = sections.begin(1, 2);
  // Key group 10 is empty, 11 and 12 are held, 13 is not in the handle.
  expect([0, 1, 2, 3].map((group) => plan.referable(group)?.end)).toEqual([undefined, 40, 50, undefined]);
  expect(plan.referable(1)).toMatchObject({ start: 20, end: 40, usefulBytes: 30 });
  for (const handle of [object('7/savepoint'), { kind: 'inline', bytes: new Uint8Array(50) } satisfies StateHandle]) {
    const other = shared();
    other.restored(RANGE, 0, handles(handle), 1);
    expect(other.begin(1, 2).referable(1)).toBeUndefined();
  }
});

test('objects that a snapshot refers to stay few, and mostly in use', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ used: fc.integer({ min: 1, max: 100 }), useful: fc.integer({ min: 1, max: 200 }) }), {
        minLength: 1,
        maxLength: 40,
      }),
      (objects) => {
        const sections = objects.map(({ used, useful }, i): Section => {
          const usefulBytes = Math.max(used, useful);
          return { handle: object(`shared/${i}`), start: 0, end: used, usefulBytes };
        });
        const rewritten = objectsToRewrite(sections);
        const kept = sections.filter(({ handle }) => handle.kind === 'object' && !rewritten.has(handle.key));
        expect(kept.length).toBeLessThan(8);
        const usedBytes = sections.reduce((sum, { end }) => sum + end, 0);
        const keptBytes =
          kept.reduce((sum, one) => sum + one.usefulBytes, 0) +
          sections.filter((one) => !kept.includes(one)).reduce((sum, { end }) => sum + end, 0);
        expect(keptBytes).toBeLessThanOrEqual(usedBytes * 2);
      },
    ),
  );
  // Nothing is written again for no reason.
  expect(objectsToRewrite(whole('shared/a')).size).toBe(0);
});

test("every key group's bytes are in exactly one handle, whatever objects they are scattered over", () => {
  fc.assert(
    fc.property(
      fc.array(fc.option(fc.record({ object: fc.nat(2), slot: fc.nat(5) }), { nil: undefined }), {
        minLength: 1,
        maxLength: 12,
      }),
      (groups) => {
        const objects = [object('shared/0'), object('shared/1'), object('shared/2')];
        const sections = groups.map((group) =>
          group === undefined ? undefined : section(objects[group.object] as StateHandle, group.slot),
        );
        const handles = handlesOf({ first: 5, last: 4 + groups.length }, sections);
        const found = groups.map(() => [] as { key: string; start: number; end: number }[]);
        for (const { firstKeyGroup, lastKeyGroup, offsets, handle } of handles) {
          expect(offsets.length).toBe(lastKeyGroup - firstKeyGroup + 2);
          for (let i = 0; i + 1 < offsets.length; i++) {
            const [start = 0, end = 0] = [offsets[i], offsets[i + 1]];
            expect(end).toBeGreaterThanOrEqual(start);
            if (end > start && handle.kind === 'object')
              found[firstKeyGroup - 5 + i]?.push({ key: handle.key, start, end });
          }
        }
        expect(found).toEqual(
          sections.map((one) =>
            one === undefined ? [] : [{ key: (one.handle as { key: string }).key, start: one.start, end: one.end }],
          ),
        );
      },
    ),
  );
});
