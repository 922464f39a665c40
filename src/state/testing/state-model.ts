import fc from 'fast-check';
import type { KeyedStateBackend, TimeToLive } from '../ports.ts';
import { canonicalKey } from '../key-group-hash.ts';
import { structuredValue } from './arbitraries.ts';

/** A naive twin of keyed state with every kind of state: plain Maps, everything copied. */

export const MODEL_TTL: TimeToLive = { ttlMs: 50, updateType: 'onCreateAndWrite', visibility: 'neverReturnExpired' };
const READ_TTL: TimeToLive = { ...MODEL_TTL, updateType: 'onReadAndWrite' };

type MapKey = string | number | readonly [string, number];

export type Operation =
  | { readonly op: 'update'; readonly state: 'value' | 'sums' | 'ttlValue' | 'readTtlValue'; readonly value: unknown }
  | { readonly op: 'clear'; readonly state: StateName }
  | { readonly op: 'read'; readonly state: StateName }
  | { readonly op: 'add'; readonly state: 'list' | 'ttlList'; readonly values: readonly unknown[] }
  | { readonly op: 'replace'; readonly state: 'list' | 'ttlList'; readonly values: readonly unknown[] }
  | { readonly op: 'put'; readonly state: 'map' | 'ttlMap'; readonly mapKey: MapKey; readonly value: unknown }
  | { readonly op: 'remove'; readonly state: 'map' | 'ttlMap'; readonly mapKey: MapKey }
  | { readonly op: 'fold'; readonly state: 'reducing' | 'aggregating'; readonly value: number }
  /** As a chain does it: in place where the state can, else by the value, packed again afterwards. */
  | { readonly op: 'sum'; readonly state: 'sums'; readonly amount: number };

export interface KeyedOperation {
  readonly key: number;
  readonly operation: Operation;
}

const STATES = [
  'value',
  'sums',
  'ttlValue',
  'readTtlValue',
  'list',
  'ttlList',
  'map',
  'ttlMap',
  'reducing',
  'aggregating',
] as const;
export type StateName = (typeof STATES)[number];

export const MODEL_KEYS = 24;

const mapKey = fc.oneof(fc.nat(6), fc.constantFrom('a', 'b', '\u0000z'), fc.tuple(fc.constant('t'), fc.nat(3)));
const few = fc.array(structuredValue, { maxLength: 4 });

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    op: fc.constant('update' as const),
    state: fc.constantFrom('value' as const, 'ttlValue' as const, 'readTtlValue' as const),
    value: structuredValue,
  }),
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('sum' as const),
      state: fc.constant('sums' as const),
      amount: fc.oneof(fc.integer({ min: -5, max: 5 }), fc.constantFrom(-0, 0.1, 2 ** 53, Number.NaN, 1e308)),
    }),
  },
  fc.record({
    op: fc.constant('update' as const),
    state: fc.constant('sums' as const),
    value: fc.tuple(fc.nat(3), fc.integer(), fc.constant('more')),
  }),
  fc.record({ op: fc.constant('clear' as const), state: fc.constantFrom(...STATES) }),
  fc.record({ op: fc.constant('read' as const), state: fc.constantFrom(...STATES) }),
  fc.record({
    op: fc.constant('add' as const),
    state: fc.constantFrom('list' as const, 'ttlList' as const),
    values: few,
  }),
  fc.record({
    op: fc.constant('replace' as const),
    state: fc.constantFrom('list' as const, 'ttlList' as const),
    values: few,
  }),
  fc.record({
    op: fc.constant('put' as const),
    state: fc.constantFrom('map' as const, 'ttlMap' as const),
    mapKey,
    value: structuredValue,
  }),
  fc.record({ op: fc.constant('remove' as const), state: fc.constantFrom('map' as const, 'ttlMap' as const), mapKey }),
  fc.record({
    op: fc.constant('fold' as const),
    state: fc.constantFrom('reducing' as const, 'aggregating' as const),
    value: fc.integer({ min: -1000, max: 1000 }),
  }),
);

export const keyedOperation: fc.Arbitrary<KeyedOperation> = fc.record({ key: fc.nat(MODEL_KEYS - 1), operation });

/** All states of one backend, opened. */
export function openStates(backend: KeyedStateBackend) {
  return {
    value: backend.valueState<unknown>('value'),
    sums: backend.valueState<unknown>('sums'),
    packedSums: backend.packedSums('sums', 1),
    ttlValue: backend.valueState<unknown>({ name: 'ttlValue', ttl: MODEL_TTL }),
    readTtlValue: backend.valueState<unknown>({ name: 'readTtlValue', ttl: READ_TTL }),
    list: backend.listState<unknown>('list'),
    ttlList: backend.listState<unknown>({ name: 'ttlList', ttl: MODEL_TTL }),
    map: backend.mapState<MapKey, unknown>('map'),
    ttlMap: backend.mapState<MapKey, unknown>({ name: 'ttlMap', ttl: MODEL_TTL }),
    reducing: backend.reducingState<number>({ name: 'reducing', reduce: (a, b) => a + b }),
    aggregating: backend.aggregatingState<number, { sum: number; count: number }, number>({
      name: 'aggregating',
      aggregate: {
        createAccumulator: () => ({ sum: 0, count: 0 }),
        add: (value, accumulator) => {
          accumulator.sum += value;
          accumulator.count++;
          return accumulator;
        },
        getResult: ({ sum, count }) => sum / count,
      },
    }),
  };
}
export type OpenStates = ReturnType<typeof openStates>;

/** What a state of the current key reads as, in a form that can be compared. */
export function readState(states: OpenStates, state: StateName): unknown {
  switch (state) {
    case 'value':
    case 'sums':
    case 'ttlValue':
    case 'readTtlValue':
      return states[state].value();
    case 'list':
    case 'ttlList':
      return [...states[state].get()];
    case 'map':
    case 'ttlMap': {
      const entries = [...states[state].entries()];
      if (states[state].isEmpty() !== (entries.length === 0)) throw new Error('isEmpty and entries disagree');
      for (const [key, value] of entries) {
        if (!states[state].contains(key)) throw new Error('entries has a key that contains denies');
        if (typeof value !== 'object' && !Object.is(states[state].get(key), value)) {
          throw new Error('entries and get disagree');
        }
      }
      return new Map(entries.map(([key, value]) => [canonicalKey(key), value]));
    }
    case 'reducing':
    case 'aggregating':
      return states[state].get();
  }
}

export function applyOperation(states: OpenStates, { key, operation }: KeyedOperation): unknown {
  switch (operation.op) {
    case 'sum':
      return addTo(states, key, operation.amount);
    case 'update':
      return states[operation.state].update(structuredClone(operation.value));
    case 'clear':
      return states[operation.state].clear();
    case 'read':
      return readState(states, operation.state);
    case 'add':
      if (operation.values.length === 1) return states[operation.state].add(structuredClone(operation.values[0]));
      return states[operation.state].addAll(structuredClone(operation.values) as unknown[]);
    case 'replace':
      return states[operation.state].update(structuredClone(operation.values) as unknown[]);
    case 'put':
      return states[operation.state].put(operation.mapKey, structuredClone(operation.value));
    case 'remove':
      return states[operation.state].remove(operation.mapKey);
    case 'fold':
      return states[operation.state].add(operation.value);
  }
}

function addTo({ sums, packedSums }: OpenStates, key: number, amount: number): void {
  if (packedSums?.usable === true) {
    if (packedSums.add(key, amount) !== undefined || packedSums.begin(key, [key, amount])) return;
  }
  const [first, sum, ...more] = (sums.value() as [number, number, ...unknown[]] | undefined) ?? [key];
  sums.update([first, sum === undefined ? amount : sum + amount, ...more]);
  if (packedSums?.usable === true) packedSums.pack();
}

interface Timed {
  readonly value: unknown;
  stampMs: number;
}

interface KeyModel {
  value?: Timed;
  sums?: Timed;
  ttlValue?: Timed;
  readTtlValue?: Timed;
  list: Timed[];
  ttlList: Timed[];
  map: Map<unknown, Timed>;
  ttlMap: Map<unknown, Timed>;
  reducing?: number;
  aggregating?: { sum: number; count: number };
}

export class StateModel {
  private readonly keys = new Map<number, KeyModel>();

  clone(): StateModel {
    const copy = new StateModel();
    for (const [key, model] of this.keys) copy.keys.set(key, structuredClone(model));
    return copy;
  }

  /** What a read gives; undefined for all other operations. */
  apply({ key, operation }: KeyedOperation, nowMs: number): unknown {
    let model = this.keys.get(key);
    if (model === undefined) {
      model = { list: [], ttlList: [], map: new Map(), ttlMap: new Map() };
      this.keys.set(key, model);
    }
    const timed = (value: unknown): Timed => ({ value: structuredClone(value), stampMs: nowMs });
    switch (operation.op) {
      case 'sum': {
        const [first, sum, ...more] = (model.sums?.value as [number, number, ...unknown[]] | undefined) ?? [key];
        model.sums = timed([first, sum === undefined ? operation.amount : sum + operation.amount, ...more]);
        return undefined;
      }
      case 'update':
        if (operation.value === undefined) delete model[operation.state];
        else model[operation.state] = timed(operation.value);
        return undefined;
      case 'clear':
        clearState(model, operation.state);
        return undefined;
      case 'read':
        return read(model, operation.state, nowMs);
      case 'add':
        model[operation.state].push(...operation.values.map(timed));
        return undefined;
      case 'replace':
        model[operation.state] = operation.values.map(timed);
        return undefined;
      case 'put':
        model[operation.state].set(canonicalKey(operation.mapKey), timed(operation.value));
        return undefined;
      case 'remove':
        model[operation.state].delete(canonicalKey(operation.mapKey));
        return undefined;
      case 'fold':
        if (operation.state === 'reducing') {
          model.reducing = (model.reducing ?? 0) + operation.value;
        } else {
          model.aggregating ??= { sum: 0, count: 0 };
          model.aggregating.sum += operation.value;
          model.aggregating.count++;
        }
        return undefined;
    }
  }

  /** Everything about one key, as reads would show it. */
  readAll(key: number, nowMs: number): Record<StateName, unknown> {
    const seen: Partial<Record<StateName, unknown>> = {};
    for (const state of STATES) seen[state] = this.apply({ key, operation: { op: 'read', state } }, nowMs);
    return seen as Record<StateName, unknown>;
  }
}

export function readAllStates(states: OpenStates): Record<StateName, unknown> {
  const seen: Partial<Record<StateName, unknown>> = {};
  for (const state of STATES) seen[state] = readState(states, state);
  return seen as Record<StateName, unknown>;
}

function clearState(model: KeyModel, state: StateName): void {
  if (state === 'list' || state === 'ttlList') model[state] = [];
  else if (state === 'map' || state === 'ttlMap') model[state] = new Map();
  else delete model[state];
}

function read(model: KeyModel, state: StateName, nowMs: number): unknown {
  const alive = ({ stampMs }: Timed) => stampMs > nowMs - MODEL_TTL.ttlMs;
  switch (state) {
    case 'value':
      return model.value?.value;
    case 'sums':
      return model.sums?.value;
    case 'ttlValue':
      return model.ttlValue !== undefined && alive(model.ttlValue) ? model.ttlValue.value : undefined;
    case 'readTtlValue': {
      const { readTtlValue } = model;
      if (readTtlValue === undefined || !alive(readTtlValue)) return undefined;
      readTtlValue.stampMs = nowMs;
      return readTtlValue.value;
    }
    case 'list':
      return model.list.map(({ value }) => value);
    case 'ttlList':
      return model.ttlList.filter(alive).map(({ value }) => value);
    case 'map':
      return new Map([...model.map].map(([key, { value }]) => [key, value]));
    case 'ttlMap':
      return new Map([...model.ttlMap].filter(([, timed]) => alive(timed)).map(([key, { value }]) => [key, value]));
    case 'reducing':
      return model.reducing;
    case 'aggregating':
      return model.aggregating === undefined ? undefined : model.aggregating.sum / model.aggregating.count;
  }
}
