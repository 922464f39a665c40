import type { StateConfig } from '../contracts/job-graph.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { KeyedStateHandle, OperatorStateHandle } from '../contracts/state-handles.ts';
import type { AttemptId, DeploymentId, JobId, OperatorId } from '../kernel/ids.ts';
import type { KeyedStateBackend, OperatorStateBackend } from '../state/ports.ts';

/** Whose state it is. Enough to give every uploaded object a name that no other attempt uses. */
export interface OperatorScope {
  readonly jobId: JobId;
  readonly deployment: DeploymentId;
  readonly operatorId: OperatorId;
  readonly attemptId: AttemptId;
  readonly subtaskIndex: number;
}

/**
 * Makes the state of one operator in one subtask, restored from handles that were already assigned
 * to this subtask. Rejects with `UNAVAILABLE`, `NOT_FOUND` or `CORRUPT` when they cannot be read.
 */
export interface StateBackendFactory {
  /** The same, for a job that says how its state is to be kept. */
  configured(config: StateConfig): StateBackendFactory;
  createKeyedStateBackend(request: {
    readonly scope: OperatorScope;
    readonly range: KeyGroupRange;
    readonly maxParallelism: number;
    readonly restore: readonly KeyedStateHandle[];
    /** Which checkpoint the handles are of; undefined on a fresh start. */
    readonly restoredCheckpointId?: number;
    readonly signal: AbortSignal;
  }): Promise<KeyedStateBackend>;
  createOperatorStateBackend(request: {
    readonly scope: OperatorScope;
    readonly restore: readonly OperatorStateHandle[];
    readonly restoredCheckpointId?: number;
    readonly signal: AbortSignal;
  }): Promise<OperatorStateBackend>;
}
