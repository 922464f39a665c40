import { type ExecutionState, executionStateSchema, isTerminalExecutionState } from '../contracts/job-status.ts';
import type { StateCounts } from '../contracts/views.ts';
import type { TaskState } from './job-state.ts';

export const EXECUTION_STATES: readonly ExecutionState[] = executionStateSchema.options;

export const NEW_TASK: TaskState = {
  state: 'CREATED',
  attempt: undefined,
  lastAttemptNumber: -1,
  endOfData: false,
  drained: false,
  peerLost: false,
  missing: 0,
  enteredMs: {},
};

/** How far an attempt has come; reports may arrive late and in any order, an attempt only moves on. */
const RANK: Readonly<Record<ExecutionState, number>> = {
  CREATED: 0,
  RECONCILING: 0,
  SCHEDULED: 1,
  DEPLOYING: 2,
  INITIALIZING: 3,
  RUNNING: 4,
  CANCELING: 5,
  FINISHED: 6,
  CANCELED: 6,
  FAILED: 6,
};

/** The task in `next`, or the same object when that would be a step back: the first end counts. */
export function advance(task: TaskState, next: ExecutionState, wallMs: number): TaskState {
  if (RANK[next] <= RANK[task.state]) return task;
  return { ...task, state: next, enteredMs: { ...task.enteredMs, [next]: wallMs } };
}

/** Whether the task may have left something in its slot. */
export function isSpoiled(task: TaskState): boolean {
  return task.state === 'FAILED' && !task.peerLost;
}

/** Whether something may be running for this task. */
export function isLive(task: TaskState): boolean {
  return task.attempt !== undefined && !isTerminalExecutionState(task.state);
}

export function countStates(tasks: readonly TaskState[]): StateCounts {
  const counts = Object.fromEntries(EXECUTION_STATES.map((state) => [state, 0])) as Record<ExecutionState, number>;
  for (const task of tasks) counts[task.state]++;
  return counts;
}

/** One state for all subtasks of a vertex, as Flink's `ExecutionJobVertex.getAggregateJobVertexState`. */
export function aggregateState(counts: StateCounts, parallelism: number): ExecutionState {
  for (const state of ['FAILED', 'CANCELING', 'CANCELED', 'INITIALIZING', 'RUNNING'] as const) {
    if (counts[state] > 0) return state;
  }
  if (counts.FINISHED > 0) return counts.FINISHED === parallelism ? 'FINISHED' : 'RUNNING';
  return 'CREATED';
}
