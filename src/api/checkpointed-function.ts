import type { Key } from './functions.ts';
import type { KeyedStateStore, ListState, ListStateDescriptor, MapStateDescriptor, MapState } from './state.ts';

/**
 * A process function, source reader or sink writer with state of its own beside that of keys: lists that
 * are dealt out anew when the parallelism changes. It asks for its states when it is initialised, before
 * it opens, and brings them up to date when a checkpoint is cut.
 */
export interface CheckpointedFunction {
  /** Once, first of all. After a restore the states hold what this subtask gets of the checkpoint. */
  initializeState(context: FunctionInitializationContext): void;
  /** At the instant of the checkpoint, between two records; synchronous. A throw declines the checkpoint. */
  snapshotState(context: FunctionSnapshotContext): void;
}

export interface FunctionInitializationContext {
  /** Whether the job continues from a checkpoint or savepoint. */
  isRestored(): boolean;
  getRestoredCheckpointId(): number | undefined;
  getOperatorStateStore(): OperatorStateStore;
  /** Of a function on a keyed stream; throws for others. */
  getKeyedStateStore(): KeyedStateStore;
}

export interface FunctionSnapshotContext {
  getCheckpointId(): number;
}

/**
 * The states of one subtask that belong to no key. They are held in memory and written whole with each
 * checkpoint, so they should be small. Names are unique in the operator, up to 190 characters.
 */
export interface OperatorStateStore {
  /** Items that belong to this subtask alone. With another parallelism all items are dealt out evenly. */
  getListState<T>(descriptor: ListStateDescriptor<T>): OperatorListState<T>;
  /** After a restore every subtask has the items of all, whatever the parallelism was. */
  getUnionListState<T>(descriptor: ListStateDescriptor<T>): OperatorListState<T>;
  /** A map that every subtask must change in the same way: after a restore each gets one copy of it. */
  getBroadcastState<K extends Key, V>(descriptor: MapStateDescriptor<K, V>): BroadcastState<K, V>;
}

export type OperatorListState<T> = ListState<T>;
export type BroadcastState<K extends Key, V> = MapState<K, V>;

export function isCheckpointed(fn: object): fn is CheckpointedFunction {
  const { initializeState, snapshotState } = fn as Partial<CheckpointedFunction>;
  return typeof initializeState === 'function' && typeof snapshotState === 'function';
}
