import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle, OperatorStateHandle } from '../contracts/state-handles.ts';
import type { AttemptId, DeploymentId, JobId, OperatorId } from '../kernel/ids.ts';
import { HeapKeyedState } from './heap-keyed-state.ts';
import type { SnapshotDeps } from './keyed-snapshot.ts';
import { HeapOperatorState } from './operator-state.ts';
import type { KeyedStateBackend, OperatorStateBackend } from './ports.ts';
import type { StateCompression } from './section.ts';
import { DEFAULT_MEMORY_THRESHOLD_BYTES } from './snapshot-object.ts';

export interface StateBackendsDeps {
  readonly objects: ObjectStore;
  /** Default: `setImmediate`, which lets input and messages in between two slices. */
  readonly yieldNow?: () => Promise<void>;
}

export interface StateBackendsOptions {
  /** State up to this size travels inside acknowledgements. Default 20 KiB. */
  readonly memoryThresholdBytes?: number;
  /** Default `none`. */
  readonly compression?: StateCompression;
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
    readonly signal: AbortSignal;
  }): Promise<KeyedStateBackend>;
  createOperatorStateBackend(request: {
    readonly scope: StateScope;
    readonly restore: readonly OperatorStateHandle[];
    readonly signal: AbortSignal;
  }): Promise<OperatorStateBackend>;
}

export function createStateBackends(deps: StateBackendsDeps, options: StateBackendsOptions = {}): StateBackends {
  const objectPrefix = options.objectPrefix ?? ((jobId) => `checkpoints/${jobId}/`);
  const snapshotDeps: SnapshotDeps = {
    objects: deps.objects,
    yieldNow: deps.yieldNow ?? yieldToEventLoop,
    memoryThresholdBytes: options.memoryThresholdBytes ?? DEFAULT_MEMORY_THRESHOLD_BYTES,
    compression: options.compression ?? 'none',
  };
  return {
    createKeyedStateBackend: ({ scope, range, maxParallelism, restore, signal }) =>
      HeapKeyedState.restore(
        snapshotDeps,
        { range, maxParallelism, nextObjectKey: objectKeys(objectPrefix, scope, 'keyed') },
        restore,
        signal,
      ),
    createOperatorStateBackend: ({ scope, restore, signal }) =>
      HeapOperatorState.restore(snapshotDeps, objectKeys(objectPrefix, scope, 'operator'), restore, signal),
  };
}

/**
 * Names of state objects. The attempt id makes them unique; the rest is for people and for the sweeper,
 * which looks below the job's prefix. The number tells an attempt's snapshots apart.
 */
function objectKeys(
  objectPrefix: (jobId: JobId) => string,
  scope: StateScope,
  kind: 'keyed' | 'operator',
): (checkpointId: number | undefined) => string {
  let n = 0;
  const { jobId, deployment, attemptId, operatorId, subtaskIndex } = scope;
  return (checkpointId) =>
    `${objectPrefix(jobId)}${checkpointId ?? 'shared'}/${deployment}-${attemptId}-${operatorId}-${subtaskIndex}-${kind}-${++n}`;
}

function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
