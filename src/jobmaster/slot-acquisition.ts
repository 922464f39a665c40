import type { Slot } from '../contracts/slots.ts';
import type { AttemptId, DeploymentId } from '../kernel/ids.ts';
import { deploymentId, newAttemptId } from '../kernel/ids.ts';
import { assert, present } from '../kernel/assert.ts';
import type { HeldSlot, RestorePoint, TaskState } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { isLive, NEW_TASK } from './task-states.ts';

/** Asks for the slots that are missing and deploys once all are there. */
export function acquire(turn: JobTurn, restore: RestorePoint): void {
  const { job } = turn.context;
  const { phase, status, slots, tasks, requests } = turn.state;
  assert(!tasks.some(isLive), 'J2: slots are asked for only when no attempt is alive');
  if (phase.kind !== 'acquiring') schedule(turn);
  const next = status === 'INITIALIZING' ? 'CREATED' : status;
  const count = job.slotsNeeded - slots.size;
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

/** New slots take the slot numbers that nobody has. */
export function fillSlots(turn: JobTurn, granted: readonly Slot[]): void {
  const held = new Map(turn.state.slots);
  const taken = new Set([...held.values()].map((slot) => slot.slotNumber));
  let slotNumber = 0;
  for (const slot of granted) {
    while (taken.has(slotNumber)) slotNumber++;
    taken.add(slotNumber);
    assert(slotNumber < turn.context.job.slotsNeeded, 'no more slots than the job needs');
    held.set(slot.allocationId, { slot, slotNumber, use: 'idle' });
  }
  turn.set({ slots: held });
}

/** J2: waits until whatever was given back, leftovers of older terms included, has ended. */
export function deployWhenReady(turn: JobTurn): void {
  const { phase, releasing, deployments, slots } = turn.state;
  if (phase.kind !== 'acquiring' || phase.request !== undefined || releasing.size > 0) return;
  const { job, random } = turn.context;
  assert(slots.size === job.slotsNeeded, 'a deployment has all its slots');
  const bySlotNumber = new Map<number, Slot>();
  for (const { slot, slotNumber, use } of slots.values()) {
    assert(use === 'idle', 'J2: slots are idle');
    bySlotNumber.set(slotNumber, slot);
  }
  const deployment = deploymentId(job.token, deployments + 1);
  const indexOf = new Map<AttemptId, number>();
  const tasks = turn.state.tasks.map((task, index): TaskState => {
    const attemptId = newAttemptId(random);
    indexOf.set(attemptId, index);
    const slot = present(bySlotNumber.get(present(job.tasks[index], 'task').slot), 'slot of the task');
    return deploying(turn, task, slot, { attemptId, deployment });
  });
  const sent = new Map([...slots].map(([id, held]): [typeof id, HeldSlot] => [id, { ...held, use: 'sent' }]));
  turn.set({ deployments: deployments + 1, tasks, indexOf, slots: sent });
  const { restore } = phase;
  turn.enter({ kind: 'executing', deployment }, 'RUNNING');
  turn.emit({ kind: 'deploy', deployment, restore });
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

/** The past attempts are history: every task waits for a slot. */
function schedule(turn: JobTurn): void {
  const { wallMs } = turn.context;
  const tasks = turn.state.tasks.map(
    ({ lastAttemptNumber }): TaskState => ({
      ...NEW_TASK,
      state: 'SCHEDULED',
      lastAttemptNumber,
      enteredMs: { CREATED: wallMs, SCHEDULED: wallMs },
    }),
  );
  turn.set({ tasks, indexOf: new Map() });
}
