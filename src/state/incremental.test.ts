import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { keyGroupFor } from './key-group-hash.ts';
import type { KeyedStateBackend } from './ports.ts';
import { createStateBackends } from './state-backends.ts';
import { testScope } from './testing/scope.ts';

const never = new AbortController().signal;
const KEYS = [...Array(400).keys()];

async function open(objects: MemoryObjectStore, restore: readonly KeyedStateHandle[] = []): Promise<KeyedStateBackend> {
  return createStateBackends({ objects }, { incremental: true, memoryThresholdBytes: 0 }).createKeyedStateBackend({
    scope: testScope(0),
    range: { first: 0, last: 15 },
    maxParallelism: 16,
    restore,
    signal: never,
  });
}

const newStore = () => new MemoryObjectStore(new ManualClock());

async function checkpoint(backend: KeyedStateBackend, id: number) {
  const result = await backend.snapshot(id).write(never);
  backend.checkpointCompleted(id);
  return result;
}

function put(backend: KeyedStateBackend, key: number, value: unknown): void {
  backend.setCurrentKey(key);
  backend.valueState('v').update(value);
}

test('a checkpoint writes the key groups that have changed, and refers to the shared objects of earlier ones for the rest', async () => {
  const backend = await open(newStore());
  for (const key of KEYS) put(backend, key, `value ${key}`);
  const first = await checkpoint(backend, 1);
  expect(first.writtenBytes).toBe(first.bytes);
  expect(first.handles).toMatchObject([{ firstKeyGroup: 0, lastKeyGroup: 15, handle: { kind: 'object' } }]);
  put(backend, 3, 'changed');
  const second = await checkpoint(backend, 2);
  expect(second.bytes).toBeGreaterThan(first.bytes * 0.9);
  expect(second.writtenBytes).toBeLessThan(first.bytes / 8);
  const third = await checkpoint(backend, 3);
  expect(third.writtenBytes).toBe(0);
  expect(third.bytes).toBe(second.bytes);
  for (const { handle } of third.handles) {
    expect(handle.kind === 'object' && handle.key).toMatch(/^checkpoints\/[0-9a-f]{32}\/shared\//);
  }
});

test('what a removal, a map entry, a list item or a refreshed time changes is written', async () => {
  const objects = newStore();
  const backend = await open(objects);
  const states = (one: KeyedStateBackend) => ({
    map: one.mapState<string, number>('m'),
    list: one.listState<number>('l'),
    ttl: one.valueState<string>({ name: 't', ttl: { ttlMs: 1e9, updateType: 'onReadAndWrite' } }),
    value: one.valueState<string>('v'),
  });
  const { map, list, ttl, value } = states(backend);
  backend.setCurrentKey('k');
  map.putAll([
    ['a', 1],
    ['b', 2],
  ]);
  list.add(1);
  ttl.update('t');
  value.update('v');
  let id = 0;
  await checkpoint(backend, ++id);
  const changes: readonly (() => void)[] = [
    () => map.remove('a'),
    () => map.put('b', 3),
    () => map.put('c', 4),
    () => list.add(2),
    () => list.update([7]),
    () => ttl.value(),
    () => value.clear(),
    () => map.clear(),
    () => list.clear(),
  ];
  for (const change of changes) {
    change();
    const { handles, writtenBytes } = await checkpoint(backend, ++id);
    expect(writtenBytes).toBeGreaterThan(0);
    const restored = await open(objects, handles);
    restored.setCurrentKey('k');
    const other = states(restored);
    expect([...other.map.entries()]).toEqual([...map.entries()]);
    expect(other.list.get()).toEqual(list.get());
    expect(other.value.value()).toEqual(value.value());
    // Reading alone changes nothing.
    other.map.get('b');
    restored.dispose();
  }
});

test('reading changes nothing, also while a snapshot is pending', async () => {
  const backend = await open(newStore());
  for (const key of KEYS) put(backend, key, { n: key });
  await checkpoint(backend, 1);
  const pending = backend.snapshot(2);
  for (const key of KEYS) {
    backend.setCurrentKey(key);
    backend.valueState('v').value();
  }
  expect(await pending.write(never)).toMatchObject({ writtenBytes: 0 });
  backend.checkpointCompleted(2);
  expect(await checkpoint(backend, 3)).toMatchObject({ writtenBytes: 0 });
});

test('a savepoint and a snapshot without id write everything, elsewhere, and nothing refers to them', async () => {
  const backend = await open(newStore());
  for (const key of KEYS) put(backend, key, key);
  const { bytes } = await checkpoint(backend, 1);
  for (const [id, kind] of [
    [2, 'SAVEPOINT'],
    [undefined, 'CHECKPOINT'],
  ] as const) {
    const savepoint = await backend.snapshot(id, { kind }).write(never);
    expect(savepoint.writtenBytes).toBe(bytes);
    for (const { handle } of savepoint.handles)
      expect(handle.kind === 'object' && handle.key).not.toContain('/shared/');
    if (id !== undefined) backend.checkpointCompleted(id);
  }
  const { handles, writtenBytes } = await checkpoint(backend, 3);
  expect(writtenBytes).toBe(0);
  expect(handles.every(({ handle }) => handle.kind === 'object' && handle.key.includes('/shared/'))).toBe(true);
});

test('however long it goes on, the objects of one checkpoint stay few and mostly in use', async () => {
  const objects = newStore();
  const backend = await open(objects);
  for (const key of KEYS) put(backend, key, 'x'.repeat(50));
  let previous: readonly KeyedStateHandle[] = [];
  for (let id = 1; id < 60; id++) {
    // One key group after the other changes.
    for (const key of KEYS) if (keyGroupFor(key, 16) === id % 16) put(backend, key, `${id}`.padStart(50));
    const { handles, bytes } = await checkpoint(backend, id);
    const keys = new Set(handles.map(({ handle }) => (handle.kind === 'object' ? handle.key : '')));
    expect(keys.size).toBeLessThanOrEqual(8);
    const gone = previous.flatMap(({ handle }) =>
      handle.kind === 'object' && !keys.has(handle.key) ? [handle.key] : [],
    );
    await objects.delete(gone);
    let stored = 0;
    for await (const object of objects.list('')) stored += object.bytes;
    expect(stored).toBeLessThanOrEqual(bytes * 2.2);
    previous = handles;
  }
  const restored = await open(objects, previous);
  expect(restored.size()).toBe(KEYS.length);
});

test('a restored backend goes on where the checkpoint was: unchanged key groups are not written again', async () => {
  const objects = newStore();
  const backend = await open(objects);
  for (const key of KEYS) put(backend, key, key);
  const { handles } = await checkpoint(backend, 1);
  const restored = await open(objects, handles);
  put(restored, 5, 'changed');
  const { bytes, writtenBytes } = await checkpoint(restored, 2);
  expect(writtenBytes).toBeLessThan(bytes / 8);
});

test('a state that gets a time-to-live after a restore is written anew, so that its age is not forgotten', async () => {
  const objects = newStore();
  const backend = await open(objects);
  for (const key of KEYS) put(backend, key, key);
  const { handles } = await checkpoint(backend, 1);
  const restored = await open(objects, handles);
  restored.valueState({ name: 'v', ttl: { ttlMs: 1_000_000 } });
  const { bytes, writtenBytes } = await checkpoint(restored, 2);
  expect(writtenBytes).toBe(bytes);
});
