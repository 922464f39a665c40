import { assert } from '../kernel/assert.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { type CanonicalKey, canonicalKey, keyGroupForCanonical } from './key-group-hash.ts';
import { KeyedSnapshot, type SnapshotDeps } from './keyed-snapshot.ts';
import { restoreKeyedState } from './keyed-restore.ts';
import type { KeyedStateBackend, PendingSnapshot, ValueState } from './ports.ts';
import type { Epochs } from './state-cells.ts';
import { type StateTable, StateTables } from './state-table.ts';
import { admit } from './state-value.ts';

export interface HeapKeyedStateOptions {
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  /** A name for an object that nobody else uses. */
  readonly nextObjectKey: (checkpointId: number | undefined) => string;
}

/** Keyed state in memory: a Map of cells per key group and state. See `StateCells` for how snapshots are cut. */
export class HeapKeyedState implements KeyedStateBackend {
  readonly range: KeyGroupRange;
  private readonly epochs: Epochs = { current: 0 };
  private tables: StateTables;
  private readonly values = new Map<string, HeapValueState<unknown>>();
  private readonly current: CurrentKey = { key: undefined, group: -1 };

  private constructor(
    private readonly deps: SnapshotDeps,
    private readonly options: HeapKeyedStateOptions,
  ) {
    this.range = options.range;
    this.tables = new StateTables(options.range, this.epochs);
  }

  static async restore(
    deps: SnapshotDeps,
    options: HeapKeyedStateOptions,
    handles: readonly KeyedStateHandle[],
    signal: AbortSignal,
  ): Promise<HeapKeyedState> {
    const backend = new HeapKeyedState(deps, options);
    const { range, maxParallelism } = options;
    await restoreKeyedState(deps, { handles, range, maxParallelism, into: backend.tables, signal });
    return backend;
  }

  setCurrentKey(key: unknown): void {
    const canonical = canonicalKey(key);
    const keyGroup = keyGroupForCanonical(canonical, this.options.maxParallelism);
    assert(keyGroup >= this.range.first && keyGroup <= this.range.last, 'a record reaches the owner of its key group');
    this.current.key = canonical;
    this.current.group = keyGroup - this.range.first;
  }

  valueState<T>(name: string): ValueState<T> {
    let state = this.values.get(name);
    if (state === undefined) {
      state = new HeapValueState(this.tables.table(name, 'value'), this.current);
      this.values.set(name, state);
    }
    return state as ValueState<unknown> as ValueState<T>;
  }

  snapshot(checkpointId?: number): PendingSnapshot<KeyedStateHandle> {
    const cut = this.epochs.current++;
    return new KeyedSnapshot(this.deps, this.range, this.options.nextObjectKey(checkpointId), this.tables.all(), cut);
  }

  size(): number {
    return this.tables.size;
  }

  dispose(): void {
    // Let go of, not cleared: a snapshot of a task that has just ended may still be walking the cells.
    this.tables = new StateTables(this.range, this.epochs);
    this.values.clear();
    this.current.key = undefined;
  }
}

/** Shared by all states of the backend. */
interface CurrentKey {
  key: CanonicalKey | undefined;
  /** Counted from the first key group of the range. */
  group: number;
}

class HeapValueState<T> implements ValueState<T> {
  constructor(
    private readonly table: StateTable,
    private readonly current: CurrentKey,
  ) {}

  value(): T | undefined {
    return this.cells().get(this.key()) as T | undefined;
  }

  update(value: T): void {
    if (value === undefined) this.clear();
    else this.cells().put(this.key(), admit(value));
  }

  clear(): void {
    this.cells().remove(this.key());
  }

  private key(): CanonicalKey {
    const { key } = this.current;
    assert(key !== undefined, 'a key is set before state is used');
    return key;
  }

  private cells() {
    const cells = this.table.groups[this.current.group];
    assert(cells !== undefined, 'a key is set before state is used');
    return cells;
  }
}
