import type { KeyedStateHandle, OperatorStateHandle, OperatorStateMode } from '../contracts/state-handles.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';

/** Keyed state of one operator in one subtask. The caller sets the key, then uses its states. */
export interface KeyedStateBackend {
  readonly range: KeyGroupRange;
  /** Selects the key that all states refer to until the next call. The key may be any `Key`; equal by value. */
  setCurrentKey(key: unknown): void;
  /**
   * The same name gives the same state, as first described. Ask for states when the operator opens: what
   * was restored and is not asked for stays as it is. Throws `CONFLICT` for a name of another kind,
   * `INVALID_ARGUMENT` for an impossible description.
   */
  valueState<T>(state: string | ValueStateDescription): ValueState<T>;
  /**
   * For a value state that holds running sums in the field of that name, and is used with strings and
   * numbers as keys: a shorter way to most of its values. Undefined where there is none.
   */
  packedSums(name: string, field: string | number): PackedSums | undefined;
  /** A state of key and time, for operators that are done with all keys of a time at once. Ask once for a name. */
  panes(name: string): Panes;
  listState<T>(state: string | ListStateDescription): ListState<T>;
  mapState<K, V>(state: string | MapStateDescription): MapState<K, V>;
  reducingState<T>(state: ReducingStateDescription<T>): ReducingState<T>;
  aggregatingState<IN, ACC, OUT>(state: AggregatingStateDescription<IN, ACC, OUT>): AggregatingState<IN, OUT>;
  /**
   * All keys that have something in the state of that name, in no particular order; none when there is
   * no such state. For what an operator must find again after a restore. The state must not get or lose
   * keys meanwhile.
   */
  keys(stateName: string): Iterable<unknown>;
  /** Visits the values of all keys of a value state, for operators that keep an index of it. In no particular order. */
  forEachValue<T>(name: string, visit: (value: T) => void): void;
  /**
   * Fixes the state as of now, synchronously; the returned function then serialises and uploads it
   * while processing goes on, and gives the handles. Calling `discard` instead drops the fixed view.
   * Without `checkpointId`, and for a savepoint, everything is written and nothing shared.
   */
  snapshot(checkpointId?: number, options?: SnapshotOptions): PendingSnapshot<KeyedStateHandle>;
  /** The checkpoint's pointer is durable: from now on what it holds may be referred to. In any order, repeated, or not at all. */
  checkpointCompleted(checkpointId: number): void;
  /** The checkpoint will never complete. A courtesy: it spares some writing. */
  checkpointAborted(checkpointId: number): void;
  /** Keys held, over all states; roughly, where counting would cost. */
  size(): number;
  /** Memory held, roughly, without what waits to be collected. Cheap enough for every batch of records. */
  estimatedBytes(): number;
  dispose(): void;
}

/** Sums whose records hold nothing but the key and the sum. Does not use the current key, but for `pack`. */
export interface PackedSums {
  /** False: none of the records has such a form. */
  readonly usable: boolean;
  /** The new sum; undefined when the key's record is not packed, and nothing was done. */
  add(key: string | number, amount: number): number | undefined;
  /**
   * The first record of a key: kept packed if it can be and the key has no value yet. False: nothing was done.
   * The record stays its owner's.
   */
  begin(key: string | number, record: unknown): boolean;
  /** A new record of a key that is packed. */
  unpack(key: string | number, sum: number): unknown;
  /** The value of the current key has been updated: packs it, if it can. */
  pack(): void;
}

/** A state of key and time. In snapshots it is a map state, with the time as the map's key. */
export interface Panes {
  /** What keys have at that time, a whole number. Made if need be. */
  pane(time: number): Pane;
  /** Times with a pane, in no particular order; also restored ones. */
  times(): readonly number[];
  /** Lets go of all that keys have at that time. */
  drop(time: number): void;
}

/** One time of {@link Panes}: a value of each key. Values are as in a {@link ValueState}. */
export interface Pane {
  value(): unknown;
  /** Not undefined. */
  update(value: unknown): void;
  /** A shorter way to sums in the field of that name, as `packedSums`. */
  sums(field: string | number): PackedSums | undefined;
  /** Adds to a number in the current key's value, in place. False when there is none. */
  addTo(field: string | number, amount: number): boolean;
  /** Adds an item to the current key's value, a list. */
  append(item: unknown): void;
  /** All keys with their values, in no particular order. Keys must neither come nor go meanwhile; changes the current key. */
  entries(): Iterable<readonly [key: unknown, value: unknown]>;
}

export interface SnapshotOptions {
  /** SAVEPOINT: on its own for ever, and never referred to by checkpoints. Default CHECKPOINT. */
  readonly kind?: 'CHECKPOINT' | 'SAVEPOINT';
  /** True: it refers to nothing that another checkpoint wrote; later ones may refer to it. */
  readonly full?: boolean | undefined;
  /** Where a savepoint's objects go: a prefix of object keys that ends in `/`. Default: the job's state. */
  readonly location?: string | undefined;
}

/** How long what a key has is kept after its last use. */
export interface TimeToLive {
  /** Of processing time. */
  readonly ttlMs: number;
  /** What counts as use. Default `onCreateAndWrite`. */
  readonly updateType?: 'onCreateAndWrite' | 'onReadAndWrite' | undefined;
  /** Default `neverReturnExpired`. The other gives what has expired once more, if it is still there. */
  readonly visibility?: 'neverReturnExpired' | 'returnExpiredIfNotCleanedUp' | undefined;
}

interface StateDescription {
  /** 1 to 200 characters, unique in its operator; what the state is found by in a checkpoint. */
  readonly name: string;
  /** Of a list: of each item. Of a map: of each entry. */
  readonly ttl?: TimeToLive | undefined;
}

export interface ValueStateDescription extends StateDescription {
  readonly kind?: 'value';
}
export interface ListStateDescription extends StateDescription {
  readonly kind?: 'list';
}
export interface MapStateDescription extends StateDescription {
  readonly kind?: 'map';
}
export interface ReducingStateDescription<T> extends StateDescription {
  readonly kind?: 'reducing';
  readonly reduce: (current: T, value: T) => T;
}
export interface AggregatingStateDescription<IN, ACC, OUT> extends StateDescription {
  readonly kind?: 'aggregating';
  readonly aggregate: {
    createAccumulator(): ACC;
    /** May change the accumulator and return it. */
    add(value: IN, accumulator: ACC): ACC;
    getResult(accumulator: ACC): OUT;
  };
}

/**
 * Values are structured data. What goes into state belongs to it from then on. What comes out may be kept
 * or changed only until the current record is done, and only `update` and its like are sure to keep a change.
 */
export interface ValueState<T> {
  /** Undefined when the current key has no value. */
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

/** Map keys are any `Key`, equal by value. */
export interface MapState<K, V> {
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

/** Named lists of items of one operator in one subtask; small. */
export interface OperatorStateBackend {
  /**
   * Items restored under this name (already redistributed), to be read once when the operator opens.
   * Throws `CONFLICT` when they were written in another mode than `mode`.
   */
  restored<T>(name: string, mode?: OperatorStateMode): readonly T[];
  /** Replaces the list under this name. Items are structured data. */
  update<T>(name: string, mode: OperatorStateMode, items: readonly T[]): void;
  snapshot(checkpointId?: number, options?: SnapshotOptions): PendingSnapshot<OperatorStateHandle>;
}

export interface PendingSnapshot<Handle> {
  /** Uploads and resolves with handles (none when there is no state). Call once. */
  write(signal: AbortSignal): Promise<{
    readonly handles: readonly Handle[];
    /** Of all that the handles refer to in this state. */
    readonly bytes: number;
    /** Of what this snapshot itself has stored. */
    readonly writtenBytes?: number;
  }>;
  discard(): void;
}
