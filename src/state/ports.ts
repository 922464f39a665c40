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
   * Fixes the state as of now, synchronously; the returned function then serialises and uploads it
   * while processing goes on, and gives the handles. Calling `discard` instead drops the fixed view.
   */
  snapshot(): PendingSnapshot<KeyedStateHandle>;
  /** Keys held, over all states. */
  size(): number;
  dispose(): void;
}

export interface ValueState<T> {
  /** Undefined when the current key has no value. */
  value(): T | undefined;
  update(value: T): void;
  clear(): void;
}

/** Named lists of items of one operator in one subtask; small. */
export interface OperatorStateBackend {
  /** Items restored under this name (already redistributed), to be read once when the operator opens. */
  restored<T>(name: string): readonly T[];
  /** Replaces the list under this name. Items are structured data. */
  update<T>(name: string, mode: OperatorStateMode, items: readonly T[]): void;
  snapshot(): PendingSnapshot<OperatorStateHandle>;
}

export interface PendingSnapshot<Handle> {
  /** Uploads and resolves with handles (none when there is no state). Call once. */
  write(signal: AbortSignal): Promise<{ readonly handles: readonly Handle[]; readonly bytes: number }>;
  discard(): void;
}
