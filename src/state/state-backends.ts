import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle, OperatorStateHandle } from '../contracts/state-handles.ts';
import type { AttemptId, DeploymentId, JobId, OperatorId } from '../kernel/ids.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import { SLICE_ROWS } from './keyed-snapshot.ts';
import { KeyedState, type KeyedStateDeps } from './keyed-state.ts';
import { keyedStores } from './keyed-stores.ts';
import { MemoryBudget } from './memory-budget.ts';
import { HeapOperatorState } from './operator-state.ts';
import type { KeyedStateBackend, OperatorStateBackend } from './ports.ts';
import type { StateCompression } from './section.ts';
import { DEFAULT_MEMORY_THRESHOLD_BYTES } from './snapshot-object.ts';

export interface StateBackendsDeps {
  readonly objects: ObjectStore;
  /** Default: `setImmediate`, which lets input and messages in between two slices. */
  readonly yieldNow?: () => Promise<void>;
  /** Its wall time is the processing time that times-to-live go by: it must mean the same after a restart. */
  readonly clock?: Clock;
  /** Rows that a snapshot serialises between two calls of `yieldNow`. Default 4,096: a millisecond or two. */
  readonly sliceRows?: number;
}

export interface StateBackendsOptions {
  /** State up to this size travels inside acknowledgements. Default 20 KiB. */
  readonly memoryThresholdBytes?: number;
  /** Default `none`. */
  readonly compression?: StateCompression;
  /**
   * Checkpoints write only the key groups that have changed since the last completed one, and refer to
   * shared objects of earlier checkpoints for the rest. Whoever deletes checkpoints must look at what the
   * others refer to. Default false.
   */
  readonly incremental?: boolean;
  /**
   * Where keyed state is: `heap` in memory, the fastest; `lmdb` on disk, for more than fits into memory.
   * Checkpoints of either restore into the other. Default `heap`.
   */
  readonly backend?: 'heap' | 'lmdb';
  /** For `lmdb`; must be given then. */
  readonly lmdb?: {
    /** On a local disk, this process's own: whatever lies there from before may be removed. Backends remove their folders. */
    readonly directory: string;
    /** Memory for rows of one backend. Default 64 MiB. */
    readonly cacheBytes?: number;
    /** Changed rows that wait in memory. Default 16,384. */
    readonly dirtyRowsMax?: number;
  };
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
  const objectPrefix = options.objectPrefix ?? ((jobId) => `checkpoints/${jobId}/`);
  const clock = deps.clock ?? new SystemClock();
  const stores = keyedStores(options);
  const incremental = options.incremental ?? false;
  let objectsNamed = 0;
  const nextNumber = () => ++objectsNamed;
  const stateDeps: KeyedStateDeps = {
    objects: deps.objects,
    yieldNow: deps.yieldNow ?? yieldToEventLoop,
    sliceRows: deps.sliceRows ?? SLICE_ROWS,
    wallMs: () => clock.wallMs(),
    budget: new MemoryBudget(options.memoryLimitBytes),
    memoryThresholdBytes: options.memoryThresholdBytes ?? DEFAULT_MEMORY_THRESHOLD_BYTES,
    compression: options.compression ?? 'none',
  };
  return {
    createKeyedStateBackend: async ({ scope, range, maxParallelism, restore, signal }) => {
      const sharedPrefix = `${objectPrefix(scope.jobId)}shared/`;
      const keyedOptions = {
        range,
        maxParallelism,
        incremental,
        nextObjectKey: objectKeys(nextNumber, objectPrefix, scope, 'keyed'),
        isShared: (key: string) => key.startsWith(sharedPrefix),
        owner: `operator ${scope.operatorId} subtask ${scope.subtaskIndex}`,
      };
      const store = await stores.open(scope, range, maxParallelism);
      return KeyedState.restore(stateDeps, keyedOptions, store, restore, signal);
    },
    createOperatorStateBackend: ({ scope, restore, signal }) => {
      const nextObjectKey = objectKeys(nextNumber, objectPrefix, scope, 'operator');
      return HeapOperatorState.restore(stateDeps, (id) => nextObjectKey(id ?? 'unnamed'), restore, signal);
    },
    close: () => stores.close(),
  };
}

/**
 * Names of state objects. The attempt id makes them unique; the rest is for people and for the sweeper,
 * which looks below the job's prefix. The number tells an attempt's snapshots apart, also those of two
 * backends of one operator.
 */
function objectKeys(
  nextNumber: () => number,
  objectPrefix: (jobId: JobId) => string,
  scope: StateScope,
  kind: 'keyed' | 'operator',
): (folder: number | 'shared' | 'unnamed') => string {
  const { jobId, deployment, attemptId, operatorId, subtaskIndex } = scope;
  return (folder) =>
    `${objectPrefix(jobId)}${folder}/${deployment}-${attemptId}-${operatorId}-${subtaskIndex}-${kind}-${nextNumber()}`;
}

function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
