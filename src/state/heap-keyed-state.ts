import { assert } from '../kernel/assert.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { type CanonicalKey, canonicalKey, keyGroupForCanonical } from './key-group-hash.ts';
import { KeyedSnapshot, type SnapshotDeps } from './keyed-snapshot.ts';
import { restoreKeyedState } from './keyed-restore.ts';
import type { KeyedStateBackend, PendingSnapshot, ValueState } from './ports.ts';
import type { Cell, Epochs, StateCells } from './state-cells.ts';
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
  private readonly current: CurrentKey = { key: undefined, group: -1, version: 0 };

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
    this.current.version++;
  }

  valueState<T>(name: string): ValueState<T> {
    let state = this.values.get(name);
    if (state === undefined) {
      state = new HeapValueState(this.tables.table(name, 'value'), this.current);
      this.values.set(name, state);
    }
    return state as ValueState<unknown> as ValueState<T>;
  }

  forEachValue<T>(name: string, visit: (value: T) => void): void {
    for (const cells of this.tables.table(name, 'value').groups) cells.forEach((value) => void visit(value as T));
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
    this.current.version++;
  }
}

/** Shared by all states of the backend. */
interface CurrentKey {
  key: CanonicalKey | undefined;
  /** Counted from the first key group of the range. */
  group: number;
  /** Changes whenever a key is set. */
  version: number;
}

class HeapValueState<T> implements ValueState<T> {
  /** The cell of the current key, so that `value` and `update` of one record look only once. */
  private cell: Cell | undefined;
  private cells: StateCells | undefined;
  private key: CanonicalKey = '';
  private foundAt = -1;

  constructor(
    private readonly table: StateTable,
    private readonly current: CurrentKey,
  ) {}

  value(): T | undefined {
    const cells = this.find();
    return this.cell === undefined ? undefined : (cells.read(this.key, this.cell) as T);
  }

  update(value: T): void {
    if (value === undefined) {
      this.clear();
      return;
    }
    const cells = this.find();
    const admitted = admit(value);
    if (this.cell === undefined) this.cell = cells.insert(this.key, admitted);
    else cells.write(this.key, this.cell, admitted);
  }

  clear(): void {
    const cells = this.find();
    if (this.cell === undefined) return;
    cells.remove(this.key, this.cell);
    this.cell = undefined;
  }

  private find(): StateCells {
    const { key, group, version } = this.current;
    if (this.foundAt === version && this.cells !== undefined) return this.cells;
    const cells = this.table.groups[group];
    assert(key !== undefined && cells !== undefined, 'a key is set before state is used');
    this.key = key;
    this.cells = cells;
    this.cell = cells.find(key);
    this.foundAt = version;
    return cells;
  }
}
