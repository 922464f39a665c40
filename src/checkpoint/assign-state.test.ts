import fc from 'fast-check';
import { expect, test } from 'vitest';
import { asOperatorId, asVertexId } from '../kernel/ids.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobGraph, JobVertex } from '../contracts/job-graph.ts';
import { keyGroupRange } from '../contracts/key-groups.ts';
import type {
  KeyedStateHandle,
  OperatorSnapshot,
  OperatorStateHandle,
  OperatorStateMode,
} from '../contracts/state-handles.ts';
import { assignState, checkRestorable, newOperatorsOf } from './assign-state.ts';

const OPERATOR = asOperatorId('a'.repeat(32));
const LENIENT = { allowNonRestoredState: true };
const STRICT = { allowNonRestoredState: false };

function vertexOf(parallelism: number, maxParallelism: number, operator = OPERATOR): JobVertex {
  return {
    id: asVertexId('b'.repeat(32)),
    name: 'count',
    parallelism,
    maxParallelism,
    slotSharingGroup: 'default',
    operators: [{ id: operator, name: 'count', kind: 'reduce', inputs: [] }],
  };
}

function metadataOf(subtasks: readonly OperatorSnapshot[], maxParallelism: number): CheckpointMetadata {
  return {
    formatVersion: 1,
    jobId: 'c'.repeat(32) as CheckpointMetadata['jobId'],
    checkpointId: 7,
    kind: 'CHECKPOINT',
    deployment: '1-1' as CheckpointMetadata['deployment'],
    triggerWallMs: 0,
    completedWallMs: 0,
    stateBytes: 0,
    graphFingerprint: 'f',
    operators: [{ operatorId: OPERATOR, parallelism: subtasks.length, maxParallelism, subtasks: [...subtasks] }],
  };
}

const graphOf = (vertex: JobVertex) => ({ vertices: [vertex] }) as unknown as JobGraph;

/** Content of a key group: its number, as many times as `weight` says; so cut bytes can be recognised. */
function keyedHandle(
  range: { first: number; last: number },
  weights: readonly number[],
  inline: boolean,
): KeyedStateHandle {
  const bytes: number[] = [];
  const offsets = [0];
  for (let group = range.first; group <= range.last; group++) {
    for (let i = 0; i < (weights[group] ?? 0); i++) bytes.push(group);
    offsets.push(bytes.length);
  }
  return {
    firstKeyGroup: range.first,
    lastKeyGroup: range.last,
    offsets,
    handle: store(Uint8Array.from(bytes), inline),
  };
}

/** Objects are kept beside the handle, so that the test can read the ranges that a restore would. */
const objects = new Map<string, Uint8Array>();

function store(bytes: Uint8Array, inline: boolean): KeyedStateHandle['handle'] {
  if (inline) return { kind: 'inline', bytes };
  const key = `object-${objects.size}`;
  objects.set(key, bytes);
  return { kind: 'object', key, size: bytes.length, digest: 'd'.repeat(64) as never };
}

function bytesOf(handle: KeyedStateHandle['handle'], start: number, end: number): number[] {
  const bytes = handle.kind === 'inline' ? handle.bytes : objects.get(handle.key);
  return [...(bytes?.subarray(start, end) ?? [])];
}

/** Key group -> its bytes, for every group of one subtask; fails when a group comes twice. */
function readKeyed(snapshots: readonly OperatorSnapshot[], into: Map<number, number[]>): void {
  for (const { keyed } of snapshots) {
    for (const { firstKeyGroup, lastKeyGroup, offsets, handle } of keyed) {
      expect(offsets.length).toBe(lastKeyGroup - firstKeyGroup + 2);
      for (let group = firstKeyGroup; group <= lastKeyGroup; group++) {
        const bytes = bytesOf(handle, offsets[group - firstKeyGroup] ?? 0, offsets[group - firstKeyGroup + 1] ?? 0);
        if (bytes.length === 0) continue;
        expect(into.has(group)).toBe(false);
        into.set(group, bytes);
      }
    }
  }
}

test('A1: over any changes of parallelism every key group goes to its owner, whole and once', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 40 }),
      fc.array(fc.tuple(fc.nat(39), fc.boolean()), { minLength: 2, maxLength: 4 }),
      (weights, steps) => {
        const maxParallelism = weights.length;
        const expected = new Map(
          [...weights.entries()].filter(([, n]) => n > 0).map(([g, n]) => [g, Array<number>(n).fill(g)]),
        );
        const [[first, inline], ...changes] = steps as [[number, boolean], ...[number, boolean][]];
        const before = (first % maxParallelism) + 1;
        let subtasks: readonly OperatorSnapshot[] = Array.from({ length: before }, (_, i) => ({
          operatorId: OPERATOR,
          keyed: [keyedHandle(keyGroupRange(maxParallelism, before, i), weights, inline)],
          operator: [],
        }));
        for (const [change] of changes) {
          const parallelism = (change % maxParallelism) + 1;
          const assigned = assignState(
            metadataOf(subtasks, maxParallelism),
            vertexOf(parallelism, maxParallelism),
            STRICT,
          );
          expect(assigned.length).toBe(parallelism);
          const all = new Map<number, number[]>();
          for (const [i, snapshots] of assigned.entries()) {
            const mine = new Map<number, number[]>();
            readKeyed(snapshots, mine);
            const range = keyGroupRange(maxParallelism, parallelism, i);
            for (const group of mine.keys()) expect(group >= range.first && group <= range.last).toBe(true);
            readKeyed(snapshots, all);
          }
          expect(new Map([...all].sort(([a], [b]) => a - b))).toEqual(expected);
          subtasks = assigned.map((snapshots) => snapshots[0] ?? { operatorId: OPERATOR, keyed: [], operator: [] });
        }
      },
    ),
  );
});

type Lists = Readonly<Record<string, { mode: OperatorStateMode; items: readonly number[] }>>;

function operatorHandle(lists: Lists, inline: boolean): OperatorStateHandle {
  const bytes: number[] = [];
  const states = Object.entries(lists).map(([name, { mode, items }]) => {
    const offsets = [bytes.length];
    for (const item of items) {
      bytes.push(item, item);
      offsets.push(bytes.length);
    }
    return { name, mode, offsets };
  });
  return { states, handle: store(Uint8Array.from(bytes), inline) };
}

function itemsOf(snapshots: readonly OperatorSnapshot[], wanted: string): number[] {
  const items: number[] = [];
  for (const { states, handle } of snapshots.flatMap(({ operator }) => operator)) {
    for (const { name, offsets } of states) {
      for (let i = 0; i + 1 < offsets.length && name === wanted; i++) {
        const [item, twin, ...rest] = bytesOf(handle, offsets[i] ?? 0, offsets[i + 1] ?? 0);
        expect([twin, rest.length]).toEqual([item, 0]);
        items.push(item ?? -1);
      }
    }
  }
  return items;
}

test('A2: over any change of parallelism SPLIT items go to one subtask, UNION items to all, BROADCAST as one copy', () => {
  const item = fc.integer({ min: 0, max: 255 });
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          split: fc.array(item, { maxLength: 6 }),
          other: fc.array(item, { maxLength: 3 }),
          union: fc.array(item, { maxLength: 3 }),
        }),
        { minLength: 1, maxLength: 6 },
      ),
      fc.array(item, { maxLength: 3 }),
      fc.integer({ min: 1, max: 9 }),
      fc.boolean(),
      (before, broadcast, parallelism, inline) => {
        const subtasks = before.map(({ split, other, union }) => ({
          operatorId: OPERATOR,
          keyed: [],
          operator: [
            operatorHandle(
              {
                split: { mode: 'SPLIT', items: split },
                union: { mode: 'UNION', items: union },
                other: { mode: 'SPLIT', items: other },
                rules: { mode: 'BROADCAST', items: broadcast },
              },
              inline,
            ),
          ],
        }));
        const assigned = assignState(metadataOf(subtasks, 128), vertexOf(parallelism, 128), STRICT);
        expect(assigned.flatMap((one) => itemsOf(one, 'split'))).toEqual(before.flatMap(({ split }) => split));
        expect(assigned.flatMap((one) => itemsOf(one, 'other'))).toEqual(before.flatMap(({ other }) => other));
        for (const [i, one] of assigned.entries()) {
          expect(itemsOf(one, 'union')).toEqual(before.flatMap(({ union }) => union));
          expect(itemsOf(one, 'rules')).toEqual(broadcast);
          // A3 when nothing changed, else even shares.
          if (parallelism === before.length) expect(itemsOf(one, 'split')).toEqual(before[i]?.split);
          else
            expect(itemsOf(one, 'split').length).toBeLessThanOrEqual(
              Math.ceil(before.flatMap(({ split }) => split).length / parallelism),
            );
        }
      },
    ),
  );
});

const keyedSubtask = (): OperatorSnapshot => ({
  operatorId: OPERATOR,
  keyed: [keyedHandle({ first: 0, last: 127 }, [1], true)],
  operator: [],
});

test('another maxParallelism is refused when there is keyed state, and harmless when there is none', () => {
  const keyed = metadataOf([keyedSubtask()], 128);
  expect(() => assignState(keyed, vertexOf(1, 256), STRICT)).toThrow(/in 128 key groups.*maxParallelism 256/);
  expect(() => checkRestorable(keyed, graphOf(vertexOf(1, 256)), LENIENT)).toThrow(
    expect.objectContaining({ code: 'INVALID_ARGUMENT', hint: expect.stringContaining('setMaxParallelism(128)') }),
  );
  const lists = operatorHandle({ splits: { mode: 'SPLIT', items: [1, 2] } }, true);
  const operator = metadataOf([{ operatorId: OPERATOR, keyed: [], operator: [lists] }], 128);
  expect(assignState(operator, vertexOf(2, 256), STRICT).map((one) => itemsOf(one, 'splits'))).toEqual([[1], [2]]);
});

test('state of an operator that is gone is refused unless dropping it is allowed; gone without state is fine', () => {
  const other = graphOf(vertexOf(1, 128, asOperatorId('e'.repeat(32))));
  expect(() => checkRestorable(metadataOf([keyedSubtask()], 128), other, STRICT)).toThrow(
    expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
  );
  expect(() => checkRestorable(metadataOf([keyedSubtask()], 128), other, LENIENT)).not.toThrow();
  const stateless = metadataOf([{ operatorId: OPERATOR, keyed: [], operator: [] }], 128);
  expect(() => checkRestorable(stateless, other, STRICT)).not.toThrow();
});

test('inline bytes travel only to those who need them', () => {
  const assigned = assignState(
    metadataOf([{ ...keyedSubtask(), keyed: [keyedHandle({ first: 0, last: 9 }, Array(10).fill(5), true)] }], 10),
    vertexOf(5, 10),
    STRICT,
  );
  for (const [i, [snapshot]] of assigned.entries()) {
    expect(snapshot?.keyed[0]).toEqual({
      firstKeyGroup: 2 * i,
      lastKeyGroup: 2 * i + 1,
      offsets: [0, 5, 10],
      handle: { kind: 'inline', bytes: Uint8Array.from([...Array(5).fill(2 * i), ...Array(5).fill(2 * i + 1)]) },
    });
  }
});

test('an operator that the checkpoint does not know is new; one that had no state left is not', () => {
  const other = asOperatorId('e'.repeat(32));
  const metadata = metadataOf([{ operatorId: OPERATOR, keyed: [], operator: [] }], 8);
  expect(newOperatorsOf(metadata, vertexOf(2, 8))).toEqual([]);
  expect(newOperatorsOf(metadata, vertexOf(2, 8, other))).toEqual([other]);
});
