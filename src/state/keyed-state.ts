import { MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { decodeCanonicalKey } from './decode-key.ts';
import { type CanonicalKey, canonicalKey } from './key-group-hash.ts';
import { type RestoreTarget, restoreKeyedState } from './keyed-restore.ts';
import { KeyedSnapshot, type SnapshotDeps, type StateViews } from './keyed-snapshot.ts';
import { type CellsFactory, KeyedStates } from './keyed-states.ts';
import { MapPanes } from './map-panes.ts';
import type { JobCopies } from './local-copies.ts';
import type { MemoryBudget, MemoryShare } from './memory-budget.ts';
import type { NamedObject } from './object-names.ts';
import type {
  AggregatingState,
  AggregatingStateDescription,
  KeyedStateBackend,
  ListState,
  ListStateDescription,
  MapState,
  MapStateDescription,
  PackedSums,
  Panes,
  PendingSnapshot,
  ReducingState,
  ReducingStateDescription,
  SnapshotOptions,
  ValueState,
  ValueStateDescription,
} from './ports.ts';
import { SharedSections, type SnapshotPlan } from './shared-sections.ts';
import { unstamped } from './ttl-cells.ts';

/** Where the states of one operator are: in memory or on disk. */
export interface KeyedStore extends CellsFactory, RestoreTarget {
  /** Makes `key` the current one of all states. */
  select(key: CanonicalKey): void;
  /** Keys of one state; none when there is no such state. */
  keys(name: string): Iterable<CanonicalKey>;
  /** Values of a single-valued state, as they are stored. */
  values(name: string): Iterable<unknown>;
  /** The cut of what has been restored; call once, after all of it. */
  restored(): number;
  /** Fixes the content as of now. */
  cut(): { readonly cut: number; readonly views: StateViews };
  /** Where a state's sums can be kept as numbers. */
  sums?(name: string, field: string | number): PackedSums;
  /** Where a map state can be kept time by time. */
  panes?(name: string): Panes;
  readonly size: number;
  readonly estimatedBytes: number;
  /** What was cut and not yet closed stays readable. */
  dispose(): void;
}

export interface KeyedStateDeps extends SnapshotDeps {
  /** Processing time, milliseconds since the epoch. */
  readonly wallMs: () => number;
  readonly budget: MemoryBudget;
}

export interface KeyedStateOptions {
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  readonly incremental: boolean;
  /** Of what is restored. */
  readonly restoredCheckpointId: number | undefined;
  /** A name that nobody else uses; shared ones lie where {@link KeyedStateOptions.isShared} says. */
  readonly objectKey: (object: NamedObject) => string;
  readonly isShared: (objectKey: string) => boolean;
  /** Local copies of what is written; undefined: none. */
  readonly copies: JobCopies | undefined;
  /** Whose state it is, for messages. */
  readonly owner: string;
}

/** Memory is looked at once in this many records. */
const RECORDS_PER_LOOK = 256;

/** Keyed state over any store: kinds of state, snapshots, what of them is shared. */
export class KeyedState implements KeyedStateBackend {
  readonly range: KeyGroupRange;
  private readonly states: KeyedStates;
  private readonly shared: SharedSections;
  private readonly memory: MemoryShare;
  private records = 0;
  private disposed = false;

  private constructor(
    private readonly deps: KeyedStateDeps,
    private readonly options: KeyedStateOptions,
    private readonly store: KeyedStore,
  ) {
    this.range = options.range;
    this.shared = new SharedSections(options.isShared);
    this.states = new KeyedStates(store, deps.wallMs, () => this.shared.forget());
    this.memory = deps.budget.share(options.owner, () => store.estimatedBytes);
  }

  /** Takes the store over, also when it fails. */
  static async restore(
    deps: KeyedStateDeps,
    options: KeyedStateOptions,
    store: KeyedStore,
    handles: readonly KeyedStateHandle[],
    signal: AbortSignal,
  ): Promise<KeyedState> {
    const { range, maxParallelism, restoredCheckpointId = 0 } = options;
    const backend = new KeyedState(deps, options, store);
    const parts = handles.map(({ handle }) => handle);
    const local = options.copies?.reader(restoredCheckpointId, parts, deps.objects);
    try {
      const onSlice = () => backend.memory.check();
      const from = { yieldNow: deps.yieldNow, objects: local ?? deps.objects };
      await restoreKeyedState(from, { handles, range, maxParallelism, into: store, onSlice, signal });
      const cut = store.restored();
      if (options.incremental && handles.length > 0) {
        backend.shared.restored(range, cut, handles, restoredCheckpointId);
      }
      return backend;
    } catch (error) {
      backend.dispose();
      throw error;
    } finally {
      await local?.close(options.owner);
    }
  }

  setCurrentKey(key: unknown): void {
    this.store.select(canonicalKey(key));
    if (++this.records === RECORDS_PER_LOOK) {
      this.records = 0;
      this.memory.check();
    }
  }

  valueState<T>(state: string | ValueStateDescription): ValueState<T> {
    return this.states.value(state);
  }

  packedSums(name: string, field: string | number): PackedSums | undefined {
    return this.store.sums?.(name, field);
  }

  panes(name: string): Panes {
    return this.store.panes?.(name) ?? new MapPanes(this, name);
  }

  listState<T>(state: string | ListStateDescription): ListState<T> {
    return this.states.list(state);
  }

  mapState<K, V>(state: string | MapStateDescription): MapState<K, V> {
    return this.states.map(state);
  }

  reducingState<T>(state: ReducingStateDescription<T>): ReducingState<T> {
    return this.states.reducing(state);
  }

  aggregatingState<IN, ACC, OUT>(state: AggregatingStateDescription<IN, ACC, OUT>): AggregatingState<IN, OUT> {
    return this.states.aggregating(state);
  }

  *keys(stateName: string): Generator<unknown> {
    for (const key of this.store.keys(stateName)) yield decodeCanonicalKey(key);
  }

  forEachValue<T>(name: string, visit: (value: T) => void): void {
    for (const value of this.store.values(name)) visit(unstamped(value) as T);
  }

  snapshot(checkpointId?: number, snapshotOptions: SnapshotOptions = {}): PendingSnapshot<KeyedStateHandle> {
    if (this.disposed) throw new MillraceError('CLOSED', 'the state was disposed of');
    const { incremental } = this.options;
    const { kind, full = false } = snapshotOptions;
    const { cut, views } = this.store.cut();
    let plan: SnapshotPlan | undefined;
    if (checkpointId !== undefined && kind === 'SAVEPOINT') this.shared.beginSavepoint(checkpointId);
    else if (checkpointId !== undefined && incremental) plan = this.shared.begin(checkpointId, cut, { full });
    const objectKey = this.options.objectKey({ ...snapshotOptions, checkpointId, shared: plan !== undefined });
    return new KeyedSnapshot(this.deps, this.range, objectKey, views, plan, {
      copy: this.options.copies?.begin(checkpointId, objectKey, snapshotOptions),
      keep: this.keeping(checkpointId, plan?.baseCheckpointId),
    });
  }

  private keeping(to: number | undefined, from: number | undefined) {
    const { copies } = this.options;
    if (copies === undefined || to === undefined || from === undefined) return undefined;
    return (objectKeys: Iterable<string>) => copies.keep({ from, to }, objectKeys);
  }

  checkpointCompleted(checkpointId: number): void {
    this.shared.completed(checkpointId);
    this.options.copies?.completed(checkpointId);
  }

  checkpointAborted(checkpointId: number): void {
    this.shared.aborted(checkpointId);
    this.options.copies?.aborted(checkpointId);
  }

  size(): number {
    return this.store.size;
  }

  estimatedBytes(): number {
    return this.store.estimatedBytes;
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.memory.release();
    this.states.clear();
    this.store.dispose();
  }
}
