import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import { type Logger, silentLogger } from '../kernel/log.ts';
import type { KeyedStateHandle, OperatorStateHandle } from '../contracts/state-handles.ts';
import type { AttemptId, DeploymentId, JobId, OperatorId } from '../kernel/ids.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import { SLICE_ROWS } from './keyed-snapshot.ts';
import { KeyedState, type KeyedStateDeps } from './keyed-state.ts';
import { JobCopies, LocalCopies } from './local-copies.ts';
import { KeyedStores } from './keyed-stores.ts';
import { MemoryBudget } from './memory-budget.ts';
import { ObjectNames } from './object-names.ts';
import { HeapOperatorState } from './operator-state.ts';
import type { KeyedStateBackend, OperatorStateBackend } from './ports.ts';
import type { SnapshotCompression, StateBackendType, StateConfig } from '../contracts/job-graph.ts';
import { DEFAULT_MEMORY_THRESHOLD_BYTES } from './snapshot-object.ts';

export interface StateBackendsDeps {
  readonly objects: ObjectStore;
  /** Default: `setImmediate`, which lets input and messages in between two slices. */
  readonly yieldNow?: () => Promise<void>;
  /** Default: silent. */
  readonly log?: Logger;
  /** Its wall time is the processing time that times-to-live go by: it must mean the same after a restart. */
  readonly clock?: Clock;
  /** Rows that a snapshot serialises between two calls of `yieldNow`. Default 4,096: a millisecond or two. */
  readonly sliceRows?: number;
}

/** Where the state backend `lmdb` keeps its files. */
export interface LmdbOptions {
  /** On a local disk, this process's own: whatever lies there from before may be removed. Backends remove their folders. */
  readonly directory: string;
  /** Memory for rows of one backend, at most a quarter of the memory limit. Default 64 MiB. */
  readonly cacheBytes?: number;
  /** Changed rows that wait in memory. Default 16,384. */
  readonly dirtyRowsMax?: number;
}

export interface StateBackendsOptions {
  /** State up to this size travels inside acknowledgements. Default 20 KiB. */
  readonly memoryThresholdBytes?: number;
  /** Default `none`. */
  readonly compression?: SnapshotCompression;
  /**
   * Checkpoints write only the key groups that have changed since the last completed one, and refer to
   * shared objects of earlier checkpoints for the rest. Whoever deletes checkpoints must look at what the
   * others refer to. Default false.
   */
  readonly incremental?: boolean;
  /**
   * Where keyed state is: `hashmap` in memory, the fastest; `lmdb` on disk, for more than fits into memory.
   * Checkpoints of either restore into the other. Default `hashmap`.
   */
  readonly backend?: StateBackendType;
  /** Copies of what is written for the newest checkpoint are kept on the local disk, if there is a directory for them. */
  readonly localRecovery?: boolean;
  /** On a local disk, of this process. */
  readonly localDirectory?: string;
  /** Must be given for `lmdb`. */
  readonly lmdb?: LmdbOptions;
  /** A task whose state, by estimate, takes the memory of all backends made here beyond this fails. Default: no limit. */
  readonly memoryLimitBytes?: number;
  /** Under which a job's state objects lie, ending in `/`: where the job's clean-up looks. Default `checkpoints/<jobId>/`. */
  readonly objectPrefix?: (jobId: JobId) => string;
}

/** Whose state it is: together unique over all attempts, so no two writers ever use one object name. */
export interface StateScope {
  readonly jobId: JobId;
  readonly deployment: DeploymentId;
  readonly operatorId: OperatorId;
  readonly attemptId: AttemptId;
  readonly subtaskIndex: number;
}

/** Makes the state of operators: empty, or restored from handles already assigned to the subtask. */
export interface StateBackends {
  /** The same, for a job that says how its state is to be kept. */
  configured(config: StateConfig): StateBackends;
  /** Rejects with `CORRUPT`, `NOT_FOUND`, `UNAVAILABLE` or `UNSUPPORTED_VERSION` when the handles cannot be read. */
  createKeyedStateBackend(request: {
    readonly scope: StateScope;
    readonly range: KeyGroupRange;
    readonly maxParallelism: number;
    readonly restore: readonly KeyedStateHandle[];
    /** Which checkpoint the handles are of; undefined on a fresh start. */
    readonly restoredCheckpointId?: number;
    readonly signal: AbortSignal;
  }): Promise<KeyedStateBackend>;
  createOperatorStateBackend(request: {
    readonly scope: StateScope;
    readonly restore: readonly OperatorStateHandle[];
    readonly restoredCheckpointId?: number;
    readonly signal: AbortSignal;
  }): Promise<OperatorStateBackend>;
  /** Resolves when what disposed backends had on disk is gone. Rejects with the first failure to remove it. */
  close(): Promise<void>;
}

export function createStateBackends(deps: StateBackendsDeps, options: StateBackendsOptions = {}): StateBackends {
  const clock = deps.clock ?? new SystemClock();
  const stores = new KeyedStores(options.lmdb, options.memoryLimitBytes);
  const { localDirectory } = options;
  const copies = localDirectory === undefined ? undefined : new LocalCopies(localDirectory, deps.log ?? silentLogger);
  const names = new ObjectNames(options.objectPrefix ?? ((jobId) => `checkpoints/${jobId}/`));
  const stateDeps = {
    objects: deps.objects,
    yieldNow: deps.yieldNow ?? yieldToEventLoop,
    sliceRows: deps.sliceRows ?? SLICE_ROWS,
    wallMs: () => clock.wallMs(),
    budget: new MemoryBudget(options.memoryLimitBytes),
    memoryThresholdBytes: options.memoryThresholdBytes ?? DEFAULT_MEMORY_THRESHOLD_BYTES,
  };
  const configured = (config: Partial<StateConfig>): StateBackends => {
    const { backend = 'hashmap', compression = 'none', incremental = false, localRecovery = false } = config;
    const copiesOf = (jobId: JobId) =>
      copies === undefined || !localRecovery ? undefined : new JobCopies(copies, jobId);
    const keyedDeps: KeyedStateDeps = { ...stateDeps, compression };
    return {
      configured,
      createKeyedStateBackend: async ({ scope, range, maxParallelism, restore, restoredCheckpointId, signal }) => {
        const keyedOptions = {
          range,
          maxParallelism,
          incremental,
          restoredCheckpointId,
          objectKey: names.of(scope, 'keyed'),
          isShared: (key: string) => names.isShared(scope.jobId, key),
          owner: ownerOf(scope),
          copies: copiesOf(scope.jobId),
        };
        const store = await stores.open(backend, scope, { range, maxParallelism });
        return KeyedState.restore(keyedDeps, keyedOptions, store, restore, signal);
      },
      createOperatorStateBackend: ({ scope, restore: handles, restoredCheckpointId = 0, signal }) => {
        const from = { handles, checkpointId: restoredCheckpointId, owner: ownerOf(scope) };
        return HeapOperatorState.restore(keyedDeps, names.of(scope, 'operator'), from, signal, copiesOf(scope.jobId));
      },
      close: async () => {
        await copies?.settled();
        await stores.close();
      },
    };
  };
  return configured(options);
}

function ownerOf({ operatorId, subtaskIndex }: StateScope): string {
  return `operator ${operatorId} subtask ${subtaskIndex}`;
}

function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
