import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { Slot } from '../contracts/slots.ts';
import type { AllocationId, AttemptId } from '../kernel/ids.ts';
import type { RegionVerdict } from './adoption-verdict.ts';
import type { Attempt, FoundAttempt, HeldSlot, TaskState } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { indexAttempts } from './slot-acquisition.ts';
import { taskKey } from '../graph/execution-graph.ts';
import { NEW_TASK } from './task-states.ts';

interface Found {
  readonly found: ReadonlyMap<AttemptId, FoundAttempt>;
  readonly slots: ReadonlyMap<AllocationId, Slot>;
}

/**
 * The attempts of the verdicts become the job's tasks, and their slots the job's slots: those of regions that go
 * on, and those of regions that are about to be ended. Everything else that was found is a leftover: it is ended
 * here, with its slot where nothing of ours is in it.
 */
export function takeOver(turn: JobTurn, { found, slots }: Found, verdicts: readonly RegionVerdict[]): void {
  const { job, wallMs } = turn.context;
  const kept = new Map<AllocationId, HeldSlot>();
  const numbers = new Set<number>();
  const tasks = [...turn.state.tasks];
  const taken = new Set<AttemptId>();
  // Those that go on come first, so that no other takes their slots' numbers.
  for (const { attempts } of [...verdicts].sort(
    (a, b) => Number(a.reason !== undefined) - Number(b.reason !== undefined),
  ))
    for (const [index, attempt] of attempts) {
      const { report } = attempt;
      const live = !isTerminalExecutionState(report.state);
      if (live && !keep(attempt, job.tasks[index]?.slot ?? -1)) continue;
      taken.add(report.attemptId);
      tasks[index] = taskOf(attempt, slots.get(report.allocationId)?.host ?? '', wallMs);
    }
  for (const { report } of found.values()) {
    const index = job.tasks.findIndex(({ key }) => key === taskKey(report.vertexId, report.subtaskIndex));
    const task = tasks[index];
    if (task !== undefined && task.lastAttemptNumber < report.attemptNumber)
      tasks[index] = { ...task, lastAttemptNumber: report.attemptNumber };
  }
  turn.set({ tasks, indexOf: indexAttempts(tasks), slots: kept });
  endLeftovers();

  function keep({ report }: FoundAttempt, slotNumber: number): boolean {
    const held = kept.get(report.allocationId);
    if (held !== undefined) return held.slotNumber === slotNumber;
    const slot = slots.get(report.allocationId);
    if (slot === undefined || numbers.has(slotNumber)) return false;
    numbers.add(slotNumber);
    kept.set(report.allocationId, { slot, slotNumber, use: 'busy' });
    return true;
  }

  function endLeftovers(): void {
    const leftovers = new Map<AllocationId, Pick<Slot, 'allocationId' | 'taskManagerId'>>();
    for (const slot of slots.values()) if (!kept.has(slot.allocationId)) leftovers.set(slot.allocationId, slot);
    for (const { report, taskManagerId } of found.values()) {
      const { allocationId, attemptId } = report;
      if (taken.has(attemptId) || isTerminalExecutionState(report.state)) continue;
      const held = kept.get(allocationId);
      if (held === undefined) leftovers.set(allocationId, { allocationId, taskManagerId });
      else turn.emit({ kind: 'cancelTasks', slot: held.slot, attemptIds: [attemptId] });
    }
    turn.release([...leftovers.values()], 'left over from an older deployment');
  }
}

function taskOf({ report, taskManagerId }: FoundAttempt, host: string, wallMs: number): TaskState {
  const { attemptId, attemptNumber, deployment, allocationId, state } = report;
  const { endOfData, drained = false, peerLost = false } = report;
  const attempt: Attempt = { attemptId, attemptNumber, deployment, allocationId, taskManagerId, host };
  return {
    ...NEW_TASK,
    state,
    attempt,
    lastAttemptNumber: attemptNumber,
    endOfData,
    drained,
    peerLost,
    enteredMs: { DEPLOYING: wallMs, [state]: wallMs },
  };
}
