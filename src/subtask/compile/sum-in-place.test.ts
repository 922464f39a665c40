import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import { aggregate } from '../../api/aggregations.ts';
import type { KeyedStateHandle } from '../../contracts/state-handles.ts';
import { ManualClock } from '../../kernel/manual-clock.ts';
import type { KeyedStateBackend } from '../../state/ports.ts';
import { createStateBackends } from '../../state/state-backends.ts';
import { testScope } from '../../state/testing/scope.ts';
import type { Chain, ChainFactory } from '../chain.ts';
import { pushChainFactory } from '../push-chain.ts';
import { compiledChainFactory } from './compiled-chain.ts';

const never = new AbortController().signal;

type Field = 0 | 1 | 'count';

/** A keyed sum with real state, as a task runs it. */
interface Rig {
  readonly chain: Chain;
  readonly backend: KeyedStateBackend;
  readonly emitted: unknown[];
  /** Where processing goes on while a snapshot is written. */
  onYield: () => void;
}

async function rig(factory: ChainFactory, field: Field, restore: readonly KeyedStateHandle[] = []): Promise<Rig> {
  const objects = new MemoryObjectStore(new ManualClock());
  const made: { onYield: () => void } = { onYield: () => undefined };
  const backend = await createStateBackends(
    { objects, yieldNow: async () => made.onYield(), sliceRows: 3 },
    { memoryThresholdBytes: 1e9 },
  ).createKeyedStateBackend({
    scope: testScope(0),
    range: { first: 0, last: 15 },
    maxParallelism: 16,
    restore,
    signal: never,
  });
  const state = backend.valueState('reduce');
  const fn = aggregate('sum', field);
  const keySelector = (record: unknown) => keyOf(record, field) as string;
  const cells = backend.packedSums('reduce', field);
  const emitted: unknown[] = [];
  const apply = (record: unknown) => {
    backend.setCurrentKey(keySelector(record));
    const current = state.value();
    const next = current === undefined ? structuredClone(record) : fn(current, record);
    state.update(next);
    return next;
  };
  const keyed = () => ({
    keySelector,
    fn,
    backend,
    state,
    ...(cells === undefined ? {} : { sums: { field, cells } }),
  });
  const chain = factory.create({
    shouldPause: () => false,
    nodes: [
      {
        site: { name: 'Sum', position: 0, chainLength: 1, taskName: 'task' },
        step: { kind: 'reduce', apply, keyed, sumOf: field },
        chained: [],
        outputs: [{ emit: (record) => void emitted.push(record) }],
      },
    ],
  });
  return Object.assign(made, { chain, backend, emitted });
}

function keyOf(record: unknown, field: Field): unknown {
  if (Array.isArray(record)) return record[field === 0 ? 1 : 0];
  return (record as { word: unknown }).word;
}

const keys = fc.oneof(
  fc.constantFrom<unknown>('a', 'b', 'c', 'a long key of many words', '\0', '\0[', '', 0, -0, 1, 2.5, Number.NaN),
  fc.constantFrom<unknown>(1n, true, ['a', 1], { a: 1 }),
);
const amounts = fc.oneof(
  { arbitrary: fc.integer({ min: -5, max: 100 }), weight: 8 },
  { arbitrary: fc.constantFrom<unknown>(-0, 0.1, 1e300, 2 ** 31, Number.NaN), weight: 2 },
);

function recordsOf(field: Field): fc.Arbitrary<unknown> {
  if (field === 'count') {
    const pair = fc.tuple(keys, amounts);
    return fc.oneof(
      { arbitrary: pair.map(([word, count]) => ({ word, count })), weight: 6 },
      { arbitrary: pair.map(([word, count]) => ({ count, word })), weight: 1 },
      { arbitrary: pair.map(([word, count]) => ({ word, count, more: [count] })), weight: 1 },
    );
  }
  const tuple = (key: unknown, amount: unknown) => (field === 0 ? [amount, key] : [key, amount]);
  return fc.oneof(
    { arbitrary: fc.tuple(keys, amounts).map(([key, amount]) => tuple(key, amount)), weight: 6 },
    { arbitrary: fc.tuple(keys, amounts).map(([key, amount]) => [...tuple(key, amount), 'more']), weight: 1 },
  );
}

const runs = fc.constantFrom<Field>(0, 1, 'count').chain((field) =>
  fc.record({
    field: fc.constant(field),
    before: fc.array(recordsOf(field), { maxLength: 30 }),
    during: fc.array(recordsOf(field), { maxLength: 12 }),
    after: fc.array(recordsOf(field), { maxLength: 15 }),
  }),
);

async function play(
  factory: ChainFactory,
  { field, before, during, after }: typeof runs extends fc.Arbitrary<infer T> ? T : never,
) {
  const first = await rig(factory, field);
  const feed = (into: Rig, records: readonly unknown[]) => {
    for (const record of records) into.chain.process(record);
  };
  feed(first, before);
  const emittedBefore = structuredClone(first.emitted);
  let left = [...during];
  first.onYield = () => {
    feed(first, left.splice(0, 2));
  };
  const pending = first.backend.snapshot(1);
  feed(first, left.splice(0, 2));
  const { handles } = await pending.write(never);
  feed(first, left.splice(0));
  left = [];
  // Nothing that went out has changed since.
  expect(first.emitted.slice(0, emittedBefore.length)).toEqual(emittedBefore);
  const second = await rig(factory, field, handles);
  feed(second, after);
  return { first: first.emitted, second: second.emitted, keys: second.backend.size() };
}

test('sums in place emit and restore what the general way does, whatever the records, also while a snapshot is written', async () => {
  await fc.assert(
    fc.asyncProperty(runs, async (run) => {
      expect(await play(compiledChainFactory, run)).toEqual(await play(pushChainFactory, run));
    }),
    { numRuns: 250, seed: 17 },
  );
});

test('a record that cannot be summed fails as it does the general way', async () => {
  for (const broken of [['a'], ['a', '1'], ['a', 1n], null, undefined, 7]) {
    const messages: string[] = [];
    for (const factory of [compiledChainFactory, pushChainFactory]) {
      const { chain } = await rig(factory, 1);
      for (const amount of [1, 2, 3]) chain.process(['a', amount]);
      try {
        chain.process(broken);
        messages.push('nothing');
      } catch (error) {
        messages.push((error as Error).message.replace(/^operator .*? threw /, ''));
      }
    }
    // The interpreter's operator says where it was; here it is bare.
    expect(messages[0]?.replace(/; record: .*$/, '')).toContain(messages[1]?.replace(/; record: .*$/, ''));
  }
});

test('packed sums take one small cell each, and every record that goes out is a new one', async () => {
  const { chain, backend, emitted } = await rig(compiledChainFactory, 1);
  for (let n = 0; n < 5; n++) chain.process(['word', 1]);
  expect(emitted).toEqual([1, 2, 3, 4, 5].map((sum) => ['word', sum]));
  expect(new Set(emitted).size).toBe(5);
  (emitted[4] as unknown[])[1] = 99;
  chain.process(['word', 1]);
  expect(emitted[5]).toEqual(['word', 6]);
  expect(backend.packedSums('reduce', 1)?.add('word', 1)).toBe(7);
  backend.setCurrentKey('word');
  expect(backend.valueState('reduce').value()).toEqual(['word', 7]);
});
