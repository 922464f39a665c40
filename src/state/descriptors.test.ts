import { expect, expectTypeOf, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import * as api from '../api/state.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import type { KeyedStateBackend } from './ports.ts';
import { createStateBackends } from './state-backends.ts';
import { testScope } from './testing/scope.ts';

/** What an operator gives the functions of a job: the compiler proves that the backend can stand behind it. */
function storeOf(backend: KeyedStateBackend): api.KeyedStateStore {
  return {
    getState: (descriptor) => backend.valueState(descriptor),
    getListState: (descriptor) => backend.listState(descriptor),
    getMapState: (descriptor) => backend.mapState(descriptor),
    getReducingState: (descriptor) => backend.reducingState(descriptor),
    getAggregatingState: (descriptor) => backend.aggregatingState(descriptor),
  };
}

async function open(): Promise<KeyedStateBackend> {
  return createStateBackends({ objects: new MemoryObjectStore(new ManualClock()) }).createKeyedStateBackend({
    scope: testScope(0),
    range: { first: 0, last: 127 },
    maxParallelism: 128,
    restore: [],
    signal: new AbortController().signal,
  });
}

test('descriptors of the API give states of their types', async () => {
  const backend = await open();
  const store = storeOf(backend);
  backend.setCurrentKey('k');
  const value = store.getState(new api.ValueStateDescriptor<{ n: number }>('value', { ttl: { ttlMs: 1_000 } }));
  expectTypeOf(value.value()).toEqualTypeOf<{ n: number } | undefined>();
  value.update({ n: 1 });
  const map = store.getMapState(new api.MapStateDescriptor<readonly [string, number], Date>('map'));
  expectTypeOf(map.entries()).toEqualTypeOf<Iterable<readonly [readonly [string, number], Date]>>();
  map.put(['a', 1], new Date(0));
  const average = store.getAggregatingState(
    new api.AggregatingStateDescriptor('average', {
      createAccumulator: () => ({ sum: 0, count: 0 }),
      add: (item: number, { sum, count }) => ({ sum: sum + item, count: count + 1 }),
      getResult: ({ sum, count }) => `${sum / count}`,
    }),
  );
  expectTypeOf(average.get()).toEqualTypeOf<string | undefined>();
  average.add(1);
  average.add(2);
  const longest = store.getReducingState(
    new api.ReducingStateDescriptor<string>('longest', (a, b) => (b.length > a.length ? b : a)),
  );
  longest.add('ab');
  longest.add('c');
  const list = store.getListState(new api.ListStateDescriptor<bigint>('list'));
  list.addAll([1n, 2n]);
  expect([value.value(), [...map.entries()], average.get(), longest.get(), list.get()]).toEqual([
    { n: 1 },
    [[['a', 1], new Date(0)]],
    '1.5',
    'ab',
    [1n, 2n],
  ]);
  // The same name, the same state.
  expect(store.getState(new api.ValueStateDescriptor('value'))).toBe(value);
});

test('impossible descriptions, and one name for two kinds of state, are refused with a reason', async () => {
  const backend = await open();
  backend.listState('taken');
  expect(() => backend.mapState('taken')).toThrow(expect.objectContaining({ code: 'CONFLICT' }));
  for (const state of [
    '',
    'x'.repeat(201),
    { name: 'a', ttl: { ttlMs: 0 } },
    { name: 'b', ttl: { ttlMs: Number.NaN } },
    { name: 'c', ttl: { ttlMs: 1, updateType: 'sometimes' as 'onReadAndWrite' } },
    { name: 'd', ttl: { ttlMs: 1, visibility: 'maybe' as 'neverReturnExpired' } },
  ]) {
    expect(() => backend.valueState(state)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  }
  backend.setCurrentKey('k');
  expect(() => backend.listState('taken').add(() => 1)).toThrow(/cannot be kept in state/);
  expect(() => backend.mapState<unknown, number>('m').put(new Date(0), 1)).toThrow(/cannot be a key/);
  const broken = backend.aggregatingState<number, unknown, unknown>({
    name: 'broken',
    aggregate: { createAccumulator: () => 1, add: () => undefined, getResult: (a) => a },
  });
  expect(() => broken.add(1)).toThrow(/undefined instead of an accumulator/);
});
