import fc from 'fast-check';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { assignKeyedHandles } from '../checkpoint/assign-state.ts';
import { keyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { keyGroupFor } from './key-group-hash.ts';
import type { KeyedStateBackend, Panes } from './ports.ts';
import { createStateBackends, type StateBackendsOptions } from './state-backends.ts';
import { testScope } from './testing/scope.ts';

const never = new AbortController().signal;
const MAX_PARALLELISM = 8;
const folder = await mkdtemp(join(tmpdir(), 'millrace-panes-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

type Action =
  | { readonly kind: 'add'; readonly key: string | number; readonly time: number; readonly amount: number }
  | { readonly kind: 'append'; readonly key: string | number; readonly time: number }
  | { readonly kind: 'drop'; readonly time: number }
  | { readonly kind: 'snapshot' }
  | { readonly kind: 'restart'; readonly parallelism: number };

const key = fc.constantFrom<string | number>('a', 'b', 'c', 'd', 0, 1, 2, 3.5);
const time = fc.integer({ min: 0, max: 3 }).map((n) => n * 1_000);
const actions = fc.array(
  fc.oneof(
    {
      arbitrary: fc.record({ kind: fc.constant('add' as const), key, time, amount: fc.integer({ min: -3, max: 9 }) }),
      weight: 12,
    },
    { arbitrary: fc.record({ kind: fc.constant('append' as const), key, time }), weight: 4 },
    { arbitrary: fc.record({ kind: fc.constant('drop' as const), time }), weight: 2 },
    { arbitrary: fc.constant({ kind: 'snapshot' as const }), weight: 2 },
    {
      arbitrary: fc.record({ kind: fc.constant('restart' as const), parallelism: fc.integer({ min: 1, max: 3 }) }),
      weight: 1,
    },
  ),
  { maxLength: 60 },
);

interface Subtask {
  readonly backend: KeyedStateBackend;
  readonly sums: Panes;
  readonly lists: Panes;
}

/** Panes as an operator uses them, over restarts with another parallelism; and the same in a Map. */
async function play(options: StateBackendsOptions, steps: readonly Action[]): Promise<void> {
  const objects = new MemoryObjectStore(new ManualClock());
  const model = new Map<string, unknown>();
  // Writing goes on while rows change.
  let meanwhile: () => void = () => undefined;
  const backends = createStateBackends(
    { objects, yieldNow: async () => meanwhile(), sliceRows: 2 },
    { memoryThresholdBytes: 1e9, ...options },
  );
  const open = async (parallelism: number, handles: readonly KeyedStateHandle[]): Promise<Subtask[]> =>
    Promise.all(
      Array.from({ length: parallelism }, async (_, index) => {
        const range = keyGroupRange(MAX_PARALLELISM, parallelism, index);
        const backend = await backends.createKeyedStateBackend({
          scope: testScope(index),
          range,
          maxParallelism: MAX_PARALLELISM,
          restore: assignKeyedHandles(handles, range),
          signal: never,
        });
        return { backend, sums: backend.panes('sums'), lists: backend.panes('lists') };
      }),
    );
  let subtasks = await open(1, []);
  const ownerOf = (one: string | number): Subtask =>
    subtasks.find(({ backend: { range } }) => {
      const group = keyGroupFor(one, MAX_PARALLELISM);
      return group >= range.first && group <= range.last;
    }) as Subtask;
  const change = (step: Action) => {
    if (step.kind === 'add') {
      const { backend, sums } = ownerOf(step.key);
      const pane = sums.pane(step.time);
      const packed = pane.sums(1);
      if (packed?.add(step.key, step.amount) === undefined) {
        backend.setCurrentKey(step.key);
        if (packed?.begin(step.key, [step.key, step.amount]) !== true && !pane.addTo(1, step.amount)) {
          pane.update([step.key, step.amount]);
          packed?.pack();
        }
      }
      const name = `sums ${step.time} ${typeof step.key} ${step.key}`;
      const [, sum] = (model.get(name) ?? [step.key, 0]) as [unknown, number];
      model.set(name, [step.key, sum + step.amount]);
    } else if (step.kind === 'append') {
      const { backend, lists } = ownerOf(step.key);
      backend.setCurrentKey(step.key);
      lists.pane(step.time).append({ at: step.time });
      const name = `lists ${step.time} ${typeof step.key} ${step.key}`;
      model.set(name, [...((model.get(name) as unknown[] | undefined) ?? []), { at: step.time }]);
    } else if (step.kind === 'drop') {
      for (const { sums } of subtasks) sums.drop(step.time);
      for (const name of [...model.keys()]) if (name.startsWith(`sums ${step.time} `)) model.delete(name);
    }
  };
  const held = () => {
    const found = new Map<string, unknown>();
    for (const { sums, lists } of subtasks) {
      for (const [name, panes] of Object.entries({ sums, lists })) {
        for (const at of panes.times()) {
          for (const [one, value] of panes.pane(at).entries()) found.set(`${name} ${at} ${typeof one} ${one}`, value);
        }
      }
    }
    return found;
  };
  let checkpointId = 0;
  for (let i = 0; i < steps.length; i++) {
    const step = steps[i] as Action;
    if (step.kind === 'add' || step.kind === 'append' || step.kind === 'drop') {
      change(step);
      continue;
    }
    const atCut = structuredClone(model);
    checkpointId++;
    const pending = subtasks.map(({ backend }) => backend.snapshot(checkpointId));
    const during = steps.slice(i + 1, i + 5).filter(({ kind }) => kind !== 'snapshot' && kind !== 'restart');
    if (step.kind === 'snapshot') meanwhile = () => during.splice(0, 1).forEach(change);
    const handles = (await Promise.all(pending.map((one) => one.write(never)))).flatMap((one) => one.handles);
    meanwhile = () => undefined;
    for (const { backend } of subtasks) backend.checkpointCompleted(checkpointId);
    if (step.kind === 'snapshot') {
      // What was changed while it was written is not in it.
      const before = subtasks;
      const live = structuredClone(model);
      subtasks = await open(2, structuredClone(handles));
      expect(held()).toEqual(atCut);
      for (const { backend } of subtasks) backend.dispose();
      subtasks = before;
      model.clear();
      for (const [name, value] of live) model.set(name, value);
    } else {
      for (const { backend } of subtasks) backend.dispose();
      subtasks = await open(step.parallelism, structuredClone(handles));
    }
    expect(held()).toEqual(model);
  }
  expect(held()).toEqual(model);
  for (const { backend } of subtasks) backend.dispose();
}

test('panes hold what a Map would, over snapshots, drops and changes of parallelism', async () => {
  await fc.assert(
    fc.asyncProperty(actions, (steps) => play({}, steps)),
    { numRuns: 150, seed: 5 },
  );
});

test('the same with checkpoints that share what has not changed', async () => {
  await fc.assert(
    fc.asyncProperty(actions, (steps) => play({ incremental: true, memoryThresholdBytes: 0 }, steps)),
    { numRuns: 150, seed: 6 },
  );
});

test('the same on disk', async () => {
  const options: StateBackendsOptions = { backend: 'lmdb', lmdb: { directory: folder } };
  await fc.assert(
    fc.asyncProperty(actions, (steps) => play(options, steps)),
    { numRuns: 15, seed: 7 },
  );
});
