import type { AllocationId, DeploymentId } from '../kernel/ids.ts';
import type { HeldSlot } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { isLive } from './task-states.ts';

/** Questions about pipelined regions: what restarts together, and what goes on. */

export function regionOf(turn: JobTurn, taskIndex: number): number {
  return turn.context.job.tasks[taskIndex]?.region ?? -1;
}

export function regionsOf(turn: JobTurn, taskIndexes: Iterable<number>): ReadonlySet<number> {
  return new Set([...taskIndexes].map((index) => regionOf(turn, index)));
}

export function allRegions(turn: JobTurn): ReadonlySet<number> {
  return new Set(turn.context.job.tasks.map((task) => task.region));
}

/** Whether the task is being ended or waits to be deployed. */
export function isRestarting(turn: JobTurn, taskIndex: number): boolean {
  return turn.state.restarting.has(regionOf(turn, taskIndex));
}

/** Whether tasks go on while others restart. */
export function isPartial(turn: JobTurn): boolean {
  return turn.state.tasks.some((task, index) => isLive(task) && !isRestarting(turn, index));
}

/** Whether anything of what restarts may still be alive. */
export function restartingAlive(turn: JobTurn): boolean {
  return turn.state.tasks.some((task, index) => isLive(task) && isRestarting(turn, index));
}

/** The tasks whose newest attempt is in the slot; with a deployment only those of it. */
export function tasksOf(
  turn: JobTurn,
  { allocationId, deployment }: { readonly allocationId: AllocationId; readonly deployment?: DeploymentId },
): readonly number[] {
  return [...turn.state.tasks.entries()].flatMap(([index, { attempt }]) =>
    attempt?.allocationId === allocationId && (deployment === undefined || attempt.deployment === deployment)
      ? [index]
      : [],
  );
}

export function busy({ slot, slotNumber }: HeldSlot): HeldSlot {
  return { slot, slotNumber, use: 'busy' };
}
