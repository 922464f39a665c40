import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { splitOperatorState } from '../checkpoint/assign-state.ts';
import type { OperatorStateHandle } from '../contracts/state-handles.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { createStateBackends, type StateBackendsOptions } from './state-backends.ts';
import { structuredValue } from './testing/arbitraries.ts';
import { testScope } from './testing/scope.ts';

const never = new AbortController().signal;

function fixture(options: StateBackendsOptions = {}) {
  const objects = new MemoryObjectStore(new ManualClock());
  const backends = createStateBackends({ objects }, options);
  const open = (restore: readonly OperatorStateHandle[] = []) =>
    backends.createOperatorStateBackend({ scope: testScope(0), restore, signal: never });
  return { objects, open };
}

test('items of every mode come back over any change of parallelism: SPLIT once, UNION and BROADCAST everywhere', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(structuredValue, { maxLength: 4 }), { minLength: 1, maxLength: 4 }),
      fc.array(structuredValue, { maxLength: 3 }),
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom(0, 20_480),
      async (lists, rules, parallelism, memoryThresholdBytes) => {
        const { open } = fixture({ memoryThresholdBytes });
        const handles: (readonly OperatorStateHandle[])[] = [];
        for (const items of lists) {
          const backend = await open();
          backend.update('splits', 'SPLIT', items);
          backend.update('offsets', 'UNION', items);
          backend.update('rules', 'BROADCAST', rules);
          handles.push((await backend.snapshot(4).write(never)).handles);
        }
        const restored = await Promise.all(splitOperatorState(handles, parallelism).map((one) => open(one)));
        expect(restored.flatMap((one) => one.restored('splits'))).toStrictEqual(lists.flat());
        for (const one of restored) {
          expect(one.restored('offsets')).toStrictEqual(lists.flat());
          expect(one.restored('rules')).toStrictEqual(rules);
          expect(one.restored('unknown')).toEqual([]);
        }
      },
    ),
    { numRuns: 50 },
  );
});

test('a list is fixed when the snapshot is cut, and items when the list is set', async () => {
  const { open } = fixture();
  const backend = await open();
  const item = { n: 1 };
  backend.update('s', 'SPLIT', [item]);
  item.n = 2;
  const pending = backend.snapshot();
  backend.update('s', 'SPLIT', [{ n: 3 }]);
  const { handles } = await pending.write(never);
  expect((await open(handles)).restored('s')).toEqual([{ n: 1 }]);
});

test('a restored list that is not updated stays in the next snapshot; an empty list leaves it', async () => {
  const { open } = fixture();
  const backend = await open();
  backend.update('kept', 'SPLIT', [1, 2]);
  backend.update('emptied', 'SPLIT', [3]);
  const second = await open((await backend.snapshot().write(never)).handles);
  second.update('emptied', 'SPLIT', []);
  const third = await open((await second.snapshot().write(never)).handles);
  expect([third.restored('kept'), third.restored('emptied')]).toEqual([[1, 2], []]);
  third.update('kept', 'SPLIT', []);
  expect(await third.snapshot().write(never)).toEqual({ handles: [], bytes: 0 });
});

test('damaged items are named; a store that fails leaves nothing and may be tried again', async () => {
  const { objects, open } = fixture({ memoryThresholdBytes: 0 });
  const backend = await open();
  backend.update('s', 'SPLIT', ['a', 'b']);
  objects.intercept = ({ kind }) => {
    if (kind === 'put') throw new Error('store away');
  };
  await expect(backend.snapshot().write(never)).rejects.toThrow('store away');
  objects.intercept = undefined;
  const { handles } = await backend.snapshot().write(never);
  const handle = handles[0]?.handle;
  if (handle?.kind !== 'object') throw new Error('expected an object');
  const bytes = await objects.get(handle.key);
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
  await objects.put(handle.key, bytes);
  await expect(open(handles)).rejects.toMatchObject({ code: 'CORRUPT' });
  await expect(open(handles)).rejects.toThrow(`item 1 of state 's' of ${handle.key}`);
});

test('a value that is no structured data is refused when the list is set', async () => {
  const backend = await fixture().open();
  expect(() => backend.update('s', 'SPLIT', [() => 1])).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});
