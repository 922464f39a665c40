import type { KeyedStateHandle, OperatorStateHandle, OperatorStateMode } from '../contracts/state-handles.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';

/** Keyed state of one operator in one subtask. The caller sets the key, then uses its states. */
export interface KeyedStateBackend {
  readonly range: KeyGroupRange;
  /** Selects the key that all states refer to until the next call. The key may be any `Key`; equal by value. */
  setCurrentKey(key: unknown): void;
  /** The same name gives the same state. */
  valueState<T>(name: string): ValueState<T>;
  /**
   * Shows the values that a value state holds, of all keys, in no particular order: for an operator that
   * rebuilds an index (timers) when it opens. They are not to be changed.
   */
  forEachValue<T>(name: string, visit: (value: T) => void): void;
  /**
   * Fixes the state as of now, synchronously; the returned function then serialises and uploads it
   * while processing goes on, and gives the handles. Calling `discard` instead drops the fixed view.
   * `checkpointId` only goes into the names of objects, for people.
   */
  snapshot(checkpointId?: number): PendingSnapshot<KeyedStateHandle>;
  /** Keys held, over all states. */
  size(): number;
  dispose(): void;
}

export interface ValueState<T> {
  /**
   * Undefined when the current key has no value. What it returns belongs to the state: it may be kept or
   * changed only until the current record is done, and only `update` is sure to keep a change.
   */
  value(): T | undefined;
  /** Takes structured data, which belongs to the state from then on. `undefined` is the same as `clear`. */
  update(value: T): void;
  clear(): void;
}

/** Named lists of items of one operator in one subtask; small. */
export interface OperatorStateBackend {
  /** Items restored under this name (already redistributed), to be read once when the operator opens. */
  restored<T>(name: string): readonly T[];
  /** Replaces the list under this name. Items are structured data. */
  update<T>(name: string, mode: OperatorStateMode, items: readonly T[]): void;
  snapshot(checkpointId?: number): PendingSnapshot<OperatorStateHandle>;
}

export interface PendingSnapshot<Handle> {
  /** Uploads and resolves with handles (none when there is no state). Call once. */
  write(signal: AbortSignal): Promise<{ readonly handles: readonly Handle[]; readonly bytes: number }>;
  discard(): void;
}
