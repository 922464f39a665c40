import type { Slot } from '../contracts/slots.ts';
import type { AttemptId, DeploymentId } from '../kernel/ids.ts';
import { compareDeployments, deploymentId, newAttemptId } from '../kernel/ids.ts';
import { assert, present } from '../kernel/assert.ts';
import type { RestorePoint, TaskState } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { isRestarting, restartingAlive } from './regions.ts';
import { isLive, NEW_TASK } from './task-states.ts';

/** Asks for the slots that are missing and deploys once all are there. */
export function acquire(turn: JobTurn, restore: RestorePoint): void {
  const { job } = turn.context;
  const { phase, status, slots, requests } = turn.state;
  assert(!restartingAlive(turn), 'J2: slots are asked for only when no attempt is alive');
  if (phase.kind !== 'acquiring') schedule(turn);
  const next = status === 'INITIALIZING' || status === 'RECONCILING' ? 'CREATED' : status;
  const count = missingSlots(turn).length;
  if (count === 0) {
    turn.enter({ kind: 'acquiring', restore, request: undefined }, next);
    deployWhenReady(turn);
    return;
  }
  const request = { id: requests + 1, count, grace: slots.size > 0 };
  turn.set({ requests: request.id });
  turn.enter({ kind: 'acquiring', restore, request }, next);
  const timeoutMs = request.grace ? job.slotGraceMs : job.slotRequestTimeoutMs;
  turn.emit({ kind: 'requestSlots', request: request.id, count, timeoutMs });
}

/** Numbers of slots that something needs and nobody has, ascending. */
function missingSlots(turn: JobTurn): readonly number[] {
  const needed = new Set<number>();
  turn.context.job.tasks.forEach(({ slot }, index) => {
    const task = turn.state.tasks[index];
    if (isRestarting(turn, index) || (task !== undefined && isLive(task))) needed.add(slot);
  });
  for (const { slotNumber } of turn.state.slots.values()) needed.delete(slotNumber);
  return [...needed].sort((a, b) => a - b);
}

/** New slots take the slot numbers that nobody has. */
export function fillSlots(turn: JobTurn, granted: readonly Slot[]): void {
  const held = new Map(turn.state.slots);
  const missing = missingSlots(turn);
  granted.forEach((slot, i) => {
    held.set(slot.allocationId, { slot, slotNumber: present(missing[i], 'number of a granted slot'), use: 'idle' });
  });
  turn.set({ slots: held });
}

/** J2: waits until whatever was given back, leftovers of older terms included, has ended. */
export function deployWhenReady(turn: JobTurn): void {
  const { phase, releasing, deployments, slots, restarting } = turn.state;
  if (phase.kind !== 'acquiring' || phase.request !== undefined || releasing.size > 0) return;
  const { job, random } = turn.context;
  assert(missingSlots(turn).length === 0, 'a deployment has all its slots');
  assert(!restartingAlive(turn), 'J2: nothing of an older deployment is alive');
  const bySlotNumber = new Map<number, Slot>();
  for (const { slot, slotNumber } of slots.values()) bySlotNumber.set(slotNumber, slot);
  const deployment = deploymentId(job.token, deployments + 1);
  const sent = new Map(slots);
  const tasks = turn.state.tasks.map((task, index): TaskState => {
    if (!isRestarting(turn, index)) return task;
    const { slot: slotNumber } = present(job.tasks[index], 'task');
    const slot = present(bySlotNumber.get(slotNumber), 'slot of the task');
    sent.set(slot.allocationId, { slot, slotNumber, use: 'sent', sent: deployment });
    return deploying(turn, task, slot, { attemptId: newAttemptId(random), deployment });
  });
  let oldestLive = deployment;
  for (const { attempt } of tasks)
    if (attempt !== undefined && compareDeployments(attempt.deployment, oldestLive) < 0)
      oldestLive = attempt.deployment;
  turn.set({ deployments: deployments + 1, tasks, indexOf: indexAttempts(tasks), slots: sent, restarting: new Set() });
  const { restore } = phase;
  turn.enter({ kind: 'executing', deployment }, 'RUNNING');
  turn.emit({ kind: 'deploy', deployment, restore, regions: restarting, oldestLive });
}

export function indexAttempts(tasks: readonly TaskState[]): ReadonlyMap<AttemptId, number> {
  return new Map(
    tasks.flatMap(({ attempt }, index) => (attempt === undefined ? [] : [[attempt.attemptId, index] as const])),
  );
}

function deploying(
  turn: JobTurn,
  task: TaskState,
  slot: Slot,
  attempt: { readonly attemptId: AttemptId; readonly deployment: DeploymentId },
): TaskState {
  const attemptNumber = task.lastAttemptNumber + 1; // J1
  const { allocationId, taskManagerId, host } = slot;
  return {
    ...NEW_TASK,
    state: 'DEPLOYING',
    attempt: { ...attempt, attemptNumber, allocationId, taskManagerId, host },
    lastAttemptNumber: attemptNumber,
    enteredMs: { ...task.enteredMs, DEPLOYING: turn.context.wallMs },
  };
}

/** The past attempts of what restarts are history: each such task waits for a slot. */
function schedule(turn: JobTurn): void {
  const { wallMs } = turn.context;
  const tasks = turn.state.tasks.map((task, index): TaskState => {
    if (!isRestarting(turn, index)) return task;
    const { lastAttemptNumber } = task;
    return { ...NEW_TASK, state: 'SCHEDULED', lastAttemptNumber, enteredMs: { CREATED: wallMs, SCHEDULED: wallMs } };
  });
  turn.set({ tasks, indexOf: indexAttempts(tasks) });
}
