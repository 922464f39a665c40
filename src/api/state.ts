import type { Key } from './functions.ts';

/**
 * Keyed state as a job author sees it: descriptors that name and describe a state, and the states that
 * functions get for them. All of it refers to the key of the current record.
 *
 * Values are structured data: strings, numbers, bigints, booleans, null, Date, typed arrays, and plain
 * arrays, objects, Maps and Sets of those. What is put into a state belongs to it from then on; what comes
 * out may be kept or changed only until the current record is done, and only a call that updates the
 * state is sure to keep a change.
 */

/** How long what a key has is kept after its last use, by processing time. */
export interface StateTtlConfig {
  /** Milliseconds. Of a list it counts for each item, of a map for each entry. */
  readonly ttlMs: number;
  /** What counts as use. Default `onCreateAndWrite`. */
  readonly updateType?: 'onCreateAndWrite' | 'onReadAndWrite' | undefined;
  /**
   * Default `neverReturnExpired`. With `returnExpiredIfNotCleanedUp` what has expired may be given once
   * more, if it is still there.
   */
  readonly visibility?: 'neverReturnExpired' | 'returnExpiredIfNotCleanedUp' | undefined;
}

export interface StateOptions {
  /** Without it a value is kept until it is cleared. */
  readonly ttl?: StateTtlConfig | undefined;
}

abstract class StateDescriptor {
  readonly ttl: StateTtlConfig | undefined;

  constructor(
    /** Unique in the operator, up to 200 characters: what the state is found by in checkpoints and savepoints. */
    readonly name: string,
    options: StateOptions,
  ) {
    this.ttl = options.ttl;
  }
}

/** What describes a value state: a {@link ValueStateDescriptor}, or a plain object written where it is used. */
export interface ValueStateName<T> {
  readonly name: string;
  /** What `value()` gives while the key has none; each key gets a copy of its own. */
  readonly defaultValue?: T | undefined;
  readonly ttl?: StateTtlConfig | undefined;
}

/** One value a key. */
export class ValueStateDescriptor<T> extends StateDescriptor implements ValueStateName<T> {
  readonly kind = 'value';
  readonly defaultValue: T | undefined;

  constructor(name: string, options: StateOptions & { readonly defaultValue?: T | undefined } = {}) {
    super(name, options);
    this.defaultValue = options.defaultValue;
  }
}

/** A list of items a key. */
export class ListStateDescriptor<T> extends StateDescriptor {
  readonly kind = 'list';
  /** Only for the type checker. */
  declare readonly itemType?: T;

  constructor(name: string, options: StateOptions = {}) {
    super(name, options);
  }
}

/** A map a key. Each entry is stored by itself, so maps may be large. */
export class MapStateDescriptor<K extends Key, V> extends StateDescriptor {
  readonly kind = 'map';
  /** Only for the type checker. */
  declare readonly entryType?: readonly [K, V];

  constructor(name: string, options: StateOptions = {}) {
    super(name, options);
  }
}

/** One value a key, to which each added one is joined at once. */
export class ReducingStateDescriptor<T> extends StateDescriptor {
  readonly kind = 'reducing';

  constructor(
    name: string,
    readonly reduce: (current: T, value: T) => T,
    options: StateOptions = {},
  ) {
    super(name, options);
  }
}

/** How an aggregating state gathers values of one type into an accumulator, and what it gives for it. */
export interface AggregateFunction<IN, ACC, OUT> {
  createAccumulator(): ACC;
  /** May change the accumulator and return it. */
  add(value: IN, accumulator: ACC): ACC;
  getResult(accumulator: ACC): OUT;
}

/** One accumulator a key, to which each added value is joined at once. */
export class AggregatingStateDescriptor<IN, ACC, OUT> extends StateDescriptor {
  readonly kind = 'aggregating';

  constructor(
    name: string,
    readonly aggregate: AggregateFunction<IN, ACC, OUT>,
    options: StateOptions = {},
  ) {
    super(name, options);
  }
}

export interface ValueState<T> {
  /** The descriptor's default, or undefined, when the key has no value. */
  value(): T | undefined;
  /** `undefined` is the same as `clear`. */
  update(value: T): void;
  clear(): void;
}

export interface ListState<T> {
  /** In the order of their addition; empty when there are none. Not to be changed. */
  get(): readonly T[];
  add(value: T): void;
  addAll(values: Iterable<T>): void;
  /** Replaces all items. */
  update(values: Iterable<T>): void;
  clear(): void;
}

/** Keys of entries are equal by value, like keys of records. */
export interface MapState<K extends Key, V> {
  get(key: K): V | undefined;
  put(key: K, value: V): void;
  putAll(entries: Iterable<readonly [K, V]>): void;
  remove(key: K): void;
  contains(key: K): boolean;
  /** In no particular order. Entries may be put and removed meanwhile; new ones may or may not be met. */
  entries(): Iterable<readonly [K, V]>;
  keys(): Iterable<K>;
  values(): Iterable<V>;
  isEmpty(): boolean;
  clear(): void;
}

export interface ReducingState<T> {
  /** Undefined before the first `add`. */
  get(): T | undefined;
  add(value: T): void;
  clear(): void;
}

export interface AggregatingState<IN, OUT> {
  /** Undefined before the first `add`. */
  get(): OUT | undefined;
  add(value: IN): void;
  clear(): void;
}

/** Where a function gets its states, when it opens. The same name gives the same state. */
export interface KeyedStateStore {
  getState<T>(descriptor: ValueStateName<T>): ValueState<T>;
  getListState<T>(descriptor: ListStateDescriptor<T>): ListState<T>;
  getMapState<K extends Key, V>(descriptor: MapStateDescriptor<K, V>): MapState<K, V>;
  getReducingState<T>(descriptor: ReducingStateDescriptor<T>): ReducingState<T>;
  getAggregatingState<IN, ACC, OUT>(descriptor: AggregatingStateDescriptor<IN, ACC, OUT>): AggregatingState<IN, OUT>;
}
