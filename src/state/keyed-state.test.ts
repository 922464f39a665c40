import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { assignKeyedHandles } from '../checkpoint/assign-state.ts';
import { keyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { keyGroupFor } from './key-group-hash.ts';
import type { KeyedStateBackend } from './ports.ts';
import { createStateBackends, type StateBackends, type StateBackendsOptions } from './state-backends.ts';
import { structuredValue } from './testing/arbitraries.ts';
import { testScope } from './testing/scope.ts';

const never = new AbortController().signal;

interface Fixture {
  readonly objects: MemoryObjectStore;
  readonly backends: StateBackends;
  /** Runs at each pause of a snapshot: where the task would go on processing. */
  onYield: () => void;
  open(
    subtask: { index: number; parallelism: number; maxParallelism: number },
    restore?: readonly KeyedStateHandle[],
  ): Promise<KeyedStateBackend>;
}

function fixture(options: StateBackendsOptions = {}): Fixture {
  const objects = new MemoryObjectStore(new ManualClock());
  const self: Fixture = {
    objects,
    onYield: () => {},
    backends: createStateBackends({ objects, yieldNow: async () => self.onYield() }, options),
    open: ({ index, parallelism, maxParallelism }, restore = []) =>
      self.backends.createKeyedStateBackend({
        scope: testScope(index),
        range: keyGroupRange(maxParallelism, parallelism, index),
        maxParallelism,
        restore,
        signal: never,
      }),
  };
  return self;
}

const ALONE = { index: 0, parallelism: 1, maxParallelism: 16 };

/** One change of one key; undefined clears it. */
interface Change {
  readonly key: number;
  readonly value: unknown;
}

function apply(backend: KeyedStateBackend, model: Map<number, unknown>, { key, value }: Change): void {
  backend.setCurrentKey(key);
  const state = backend.valueState<unknown>('v');
  if (value === undefined) {
    state.clear();
    model.delete(key);
  } else {
    state.update(value);
    model.set(key, value);
  }
}

function contents(backend: KeyedStateBackend, keys: Iterable<number>): Map<number, unknown> {
  const state = backend.valueState<unknown>('v');
  const found = new Map<number, unknown>();
  for (const key of keys) {
    backend.setCurrentKey(key);
    const value = state.value();
    if (value !== undefined) found.set(key, value);
  }
  return found;
}

const KEYS = [...Array(40).keys()];
const change = fc.record({ key: fc.nat(39), value: fc.option(structuredValue, { nil: undefined }) });

test('a snapshot holds the state as it was at the cut, whatever changes while it is written', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { maxLength: 60 }),
      fc.array(fc.array(change, { maxLength: 5 }), { maxLength: 40 }),
      fc.constantFrom('none' as const, 'gzip' as const, 'lz4' as const),
      async (before, during, compression) => {
        const f = fixture({ compression });
        const backend = await f.open(ALONE);
        const model = new Map<number, unknown>();
        for (const one of before) apply(backend, model, one);
        const atCut = new Map(model);
        const pending = backend.snapshot(7);
        const batches = [...during];
        f.onYield = () => {
          for (const one of batches.shift() ?? []) apply(backend, model, one);
        };
        for (const one of batches.shift() ?? []) apply(backend, model, one);
        const { handles } = await pending.write(never);
        f.onYield = () => {};
        const restored = await f.open(ALONE, handles);
        expect(contents(restored, KEYS)).toStrictEqual(atCut);
        expect(contents(backend, KEYS)).toStrictEqual(model);
        expect(restored.size()).toBe(atCut.size);
      },
    ),
  );
});

test('several snapshots in flight, written in any order or discarded, each hold their own cut', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(change, { maxLength: 20 }), { minLength: 2, maxLength: 4 }),
      fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 4, maxLength: 4 }),
      fc.array(change, { maxLength: 30 }),
      async (phases, order, during) => {
        const f = fixture();
        const backend = await f.open(ALONE);
        const model = new Map<number, unknown>();
        const cuts = phases.map((changes) => {
          for (const one of changes) apply(backend, model, one);
          return { pending: backend.snapshot(), expected: new Map(model) };
        });
        const rest = [...during];
        f.onYield = () => {
          const next = rest.shift();
          if (next !== undefined) apply(backend, model, next);
        };
        const ranked = cuts.map((cut, i) => ({ cut, rank: order[i] ?? 0 })).sort((a, b) => a.rank - b.rank);
        const writes = ranked.map(async ({ cut, rank }) => {
          if (rank === 0) {
            cut.pending.discard();
            return;
          }
          const { handles } = await cut.pending.write(never);
          const restored = await fixtureOver(f).open(ALONE, handles);
          expect(contents(restored, KEYS)).toStrictEqual(cut.expected);
        });
        // Odd: one after the other; even: interleaved.
        if ((order[0] ?? 0) % 2 === 1) for (const write of writes) await write;
        else await Promise.all(writes);
        expect(contents(backend, KEYS)).toStrictEqual(model);
      },
    ),
  );
});

/** Another task's view of the same objects. */
function fixtureOver(f: Fixture): Fixture {
  const other = fixture();
  const backends = createStateBackends({ objects: f.objects });
  return {
    ...other,
    backends,
    open: async (subtask, restore = []) =>
      backends.createKeyedStateBackend({
        scope: testScope(subtask.index),
        range: keyGroupRange(subtask.maxParallelism, subtask.parallelism, subtask.index),
        maxParallelism: subtask.maxParallelism,
        restore,
        signal: never,
      }),
  };
}

test('a value changed in place while a snapshot is pending does not reach into the snapshot', async () => {
  const f = fixture();
  const backend = await f.open(ALONE);
  const state = backend.valueState<{ n: number; list: number[] }>('v');
  backend.setCurrentKey('k');
  state.update({ n: 1, list: [1] });
  const pending = backend.snapshot();
  const value = state.value();
  if (value === undefined) throw new Error('the value is there');
  value.n = 2;
  value.list.push(2);
  const { handles } = await pending.write(never);
  // Kept although update was not called, as with a plain Map.
  expect(state.value()).toEqual({ n: 2, list: [1, 2] });
  const restored = await f.open(ALONE, handles);
  restored.setCurrentKey('k');
  expect(restored.valueState('v').value()).toEqual({ n: 1, list: [1] });
});

test('restoring over any changes of parallelism keeps every key exactly once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.oneof(fc.string(), fc.integer(), fc.bigInt(), fc.tuple(fc.string(), fc.nat())), {
        maxLength: 40,
        selector: (key) => (typeof key === 'object' ? JSON.stringify(key) : key),
      }),
      fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 2, maxLength: 4 }),
      fc.constantFrom(0, 20_480),
      async (keys, parallelisms, memoryThresholdBytes) => {
        const f = fixture({ memoryThresholdBytes });
        const maxParallelism = 16;
        let handles: KeyedStateHandle[] = [];
        for (const [step, parallelism] of parallelisms.entries()) {
          const next: KeyedStateHandle[] = [];
          let held = 0;
          for (let index = 0; index < parallelism; index++) {
            const range = keyGroupRange(maxParallelism, parallelism, index);
            const backend = await f.open({ index, parallelism, maxParallelism }, assignKeyedHandles(handles, range));
            for (const key of keys) {
              const group = keyGroupFor(key, maxParallelism);
              if (group < range.first || group > range.last) continue;
              backend.setCurrentKey(key);
              const state = backend.valueState<unknown>('v');
              if (step > 0) expect(state.value()).toStrictEqual([key, step - 1]);
              state.update([key, step]);
            }
            held += backend.size();
            next.push(...(await backend.snapshot().write(never)).handles);
          }
          expect(held).toBe(keys.length);
          handles = next;
        }
      },
    ),
    { numRuns: 50 },
  );
});

test('a restore reads the owned ranges only', async () => {
  const f = fixture({ memoryThresholdBytes: 0 });
  const backend = await f.open(ALONE);
  for (const key of KEYS) apply(backend, new Map(), { key, value: 'x'.repeat(100) });
  const { handles, bytes } = await backend.snapshot(3).write(never);
  const read: string[] = [];
  f.objects.intercept = ({ kind }) => void read.push(kind);
  const range = keyGroupRange(16, 8, 3);
  const part = await f.open({ index: 3, parallelism: 8, maxParallelism: 16 }, handles);
  expect(read).toEqual(['getRange']);
  expect(part.size()).toBe(
    KEYS.filter((key) => keyGroupFor(key, 16) >= range.first && keyGroupFor(key, 16) <= range.last).length,
  );
  expect(handles[0]?.handle).toMatchObject({ kind: 'object', size: bytes });
});

test('small state travels inside the handle, larger state as an object named after job, checkpoint and attempt', async () => {
  const f = fixture({ memoryThresholdBytes: 200 });
  const backend = await f.open(ALONE);
  expect(await backend.snapshot(1).write(never)).toEqual({ handles: [], bytes: 0 });
  apply(backend, new Map(), { key: 1, value: 'a' });
  const small = await backend.snapshot(2).write(never);
  expect(small.handles[0]?.handle.kind).toBe('inline');
  apply(backend, new Map(), { key: 2, value: 'x'.repeat(300) });
  const keys = new Set<string>();
  for (let i = 0; i < 2; i++) {
    const { handles } = await backend.snapshot(3).write(never);
    const handle = handles[0]?.handle;
    if (handle?.kind !== 'object') throw new Error('expected an object');
    expect(handle.key).toMatch(/^checkpoints\/[0-9a-f]{32}\/3\/5-1-[0-9a-f]{32}-[0-9a-f]{32}-0-keyed-\d+$/);
    keys.add(handle.key);
  }
  expect(keys.size).toBe(2);
});

async function snapshotObject(f: Fixture) {
  const backend = await f.open(ALONE);
  for (const key of KEYS) apply(backend, new Map(), { key, value: `value ${key}` });
  const { handles } = await backend.snapshot(1).write(never);
  const [handle] = handles;
  if (handle?.handle.kind !== 'object') throw new Error('expected an object');
  return { keyed: handle, object: handle.handle, bytes: Uint8Array.from(await f.objects.get(handle.handle.key)) };
}

test('damage anywhere in an object is found, and the message names the object and the key group', async () => {
  const f = fixture({ memoryThresholdBytes: 0 });
  const { keyed, object, bytes } = await snapshotObject(f);
  for (let at = 0; at < bytes.length; at += 7) {
    const damagedBytes = Uint8Array.from(bytes);
    damagedBytes[at] = (damagedBytes[at] ?? 0) ^ 0x10;
    await f.objects.put(object.key, damagedBytes);
    const group = keyed.offsets.findIndex((offset) => offset > at) - 1;
    // Also when only this key group is read, so that no digest of the whole can help.
    for (const range of [
      { first: 0, last: 15 },
      { first: group, last: group },
    ]) {
      const restoring = f.backends.createKeyedStateBackend({
        scope: testScope(0),
        range,
        maxParallelism: 16,
        restore: [keyed],
        signal: never,
      });
      const error: unknown = await restoring.catch((thrown: unknown) => thrown);
      // The version byte is the one place where damage may read as a newer version.
      expect(error).toMatchObject({ code: expect.stringMatching(/^(CORRUPT|UNSUPPORTED_VERSION)$/) });
      expect(String(error)).toContain(`key group ${group} of ${object.key}`);
    }
  }
});

test('a truncated object, an exchanged object and impossible offsets are CORRUPT; a missing one is NOT_FOUND', async () => {
  const f = fixture({ memoryThresholdBytes: 0 });
  const { keyed, object, bytes } = await snapshotObject(f);
  await f.objects.put(object.key, bytes.subarray(0, bytes.length - 1));
  await expect(f.open(ALONE, [keyed])).rejects.toMatchObject({ code: 'CORRUPT' });
  await f.objects.put(object.key, bytes);
  await expect(f.open(ALONE, [keyed])).resolves.toBeDefined();
  const otherDigest = { ...keyed, handle: { ...object, digest: 'f'.repeat(64) as typeof object.digest } };
  await expect(f.open(ALONE, [otherDigest])).rejects.toThrow(/digest/);
  await expect(f.open(ALONE, [{ ...keyed, offsets: keyed.offsets.slice(1) }])).rejects.toMatchObject({
    code: 'CORRUPT',
  });
  await f.objects.delete([object.key]);
  await expect(f.open(ALONE, [keyed])).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('state written with another maxParallelism is refused', async () => {
  const f = fixture();
  const backend = await f.open(ALONE);
  for (const key of KEYS) apply(backend, new Map(), { key, value: 1 });
  const { handles } = await backend.snapshot().write(never);
  await expect(f.open({ index: 0, parallelism: 1, maxParallelism: 64 }, handles)).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});

test('an aborted or failed write leaves nothing behind, and the state goes on', async () => {
  const f = fixture({ memoryThresholdBytes: 0 });
  const backend = await f.open(ALONE);
  const model = new Map<number, unknown>();
  for (const key of KEYS) apply(backend, model, { key, value: key });
  const abort = new AbortController();
  let pauses = 0;
  f.onYield = () => {
    if (++pauses === 3) abort.abort(new Error('checkpoint expired'));
  };
  await expect(backend.snapshot().write(abort.signal)).rejects.toThrow('checkpoint expired');
  f.onYield = () => {};
  f.objects.intercept = ({ kind }) => {
    if (kind === 'put') throw new Error('store away');
  };
  await expect(backend.snapshot().write(never)).rejects.toThrow('store away');
  f.objects.intercept = undefined;
  const listed: unknown[] = [];
  for await (const object of f.objects.list('checkpoints/')) listed.push(object);
  expect(listed).toEqual([]);
  const { handles } = await backend.snapshot().write(never);
  expect(contents(await f.open(ALONE, handles), KEYS)).toEqual(model);
});

test('a snapshot written after its task has ended is still complete', async () => {
  const f = fixture();
  const backend = await f.open(ALONE);
  const model = new Map<number, unknown>();
  for (const key of KEYS) apply(backend, model, { key, value: key });
  const pending = backend.snapshot();
  backend.dispose();
  expect(backend.size()).toBe(0);
  expect(contents(await f.open(ALONE, (await pending.write(never)).handles), KEYS)).toEqual(model);
});

test('states that nobody asked for after a restore are kept, and states are apart by name', async () => {
  const f = fixture();
  const backend = await f.open(ALONE);
  backend.setCurrentKey('k');
  backend.valueState('a').update('A');
  backend.valueState('b').update('B');
  const first = await f.open(ALONE, (await backend.snapshot().write(never)).handles);
  const second = await f.open(ALONE, (await first.snapshot().write(never)).handles);
  second.setCurrentKey('k');
  expect([second.valueState('a').value(), second.valueState('b').value(), second.valueState('c').value()]).toEqual([
    'A',
    'B',
    undefined,
  ]);
});

test('keys and values cut from long strings do not keep the long strings alive', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const f = fixture();
  const backend = await f.open(ALONE);
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 500; i++) {
    const column = Buffer.alloc(100_000, `key number ${i} and value number ${i};`).toString('latin1');
    backend.setCurrentKey(column.slice(0, 40));
    backend.valueState('v').update([column.slice(20, 60), { text: column.slice(30, 70) }]);
  }
  collect();
  // 50 MB if one string a key stayed alive.
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(20_000_000);
});

test('while a large key group is written, processing is let in every few thousand cells', async () => {
  const f = fixture();
  const backend = await f.open({ index: 0, parallelism: 1, maxParallelism: 1 });
  const state = backend.valueState<number>('v');
  for (let key = 0; key < 50_000; key++) {
    backend.setCurrentKey(key);
    state.update(key);
  }
  let pauses = 0;
  f.onYield = () => {
    // Changed both before and behind the walk: none may be lost or doubled.
    for (const key of [pauses * 1_000, 49_999 - pauses * 1_000]) {
      backend.setCurrentKey(key);
      state.update(-1);
    }
    pauses++;
  };
  const { handles } = await backend.snapshot().write(never);
  expect(pauses).toBeGreaterThan(10);
  f.onYield = () => {};
  const restored = await f.open({ index: 0, parallelism: 1, maxParallelism: 1 }, handles);
  expect(restored.size()).toBe(50_000);
  for (let key = 0; key < 50_000; key++) {
    restored.setCurrentKey(key);
    if (restored.valueState('v').value() !== key) throw new Error(`key ${key} is not as it was at the cut`);
  }
});
