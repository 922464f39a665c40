import { jobStatusSchema, type JobStatus } from '../contracts/job-status.ts';
import type { Slot } from '../contracts/slots.ts';
import { assert, unreachable } from '../kernel/assert.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { JobConstants, JobEffect, JobEvent, JobState } from './job-state.ts';
import { endAttempts, fail, failover, releaseHeld, restore, stop, stopped } from './job-transitions.ts';
import { acquire, deployWhenReady, fillSlots } from './slot-acquisition.ts';
import { type JobContext, JobTurn } from './job-turn.ts';
import { NO_FAILURES } from './restart-strategy.ts';
import { NEW_TASK } from './task-states.ts';
import { taskReported, workerLost, workerReported } from './worker-events.ts';

/**
 * One job's life as a pure step function: (state, event) -> (state, effects).
 *
 * Invariants:
 *   J1. Deployment numbers and the attempt numbers of every subtask strictly rise.
 *   J2. Nothing is deployed while an older attempt may be alive: each has ended, or its slot was
 *       given back, or its worker is lost.
 *   J3. Terminal is terminal: after `ended` nothing is requested, deployed or restarted.
 *   J4. The first end of an attempt counts; no state of an attempt ever goes back.
 *   J5. The job ends only when nothing of it runs.
 *   J6. Every slot ever granted is held, given back, or gone with its worker.
 *   J7. Answers to questions of the past (requests, timers, deployments) change nothing.
 */
export function initialJob(job: JobConstants, wallMs: number): JobState {
  const enteredMs = Object.fromEntries(jobStatusSchema.options.map((status) => [status, 0])) as Record<
    JobStatus,
    number
  >;
  return {
    phase: { kind: 'restoring', failures: 0 },
    status: 'INITIALIZING',
    enteredMs: { ...enteredMs, INITIALIZING: wallMs },
    tasks: job.tasks.map(() => NEW_TASK),
    indexOf: new Map(),
    slots: new Map(),
    releasing: new Map(),
    lost: new Set(),
    deployments: 0,
    requests: 0,
    restarts: 0,
    failures: NO_FAILURES,
    timer: 0,
  };
}

export function stepJob(
  state: JobState,
  event: JobEvent,
  context: JobContext,
): { readonly state: JobState; readonly effects: readonly JobEffect[] } {
  const turn = new JobTurn(state, context);
  apply(turn, event);
  return { state: turn.state, effects: turn.effects };
}

function apply(turn: JobTurn, event: JobEvent): void {
  const { phase } = turn.state;
  switch (event.kind) {
    case 'start':
      // Seam for adoption: a mode `adopt` would wait here for the workers' reports, and enter
      // `executing` with the attempts they hold instead of ending them as leftovers.
      if (event.cancelRequested) stop(turn, { kind: 'cancel' }, 'cancelled before this term', 'registering');
      else restore(turn, 0);
      return;
    case 'cancel':
      if (phase.kind === 'ended' || (phase.kind === 'stopping' && phase.then.kind === 'cancel')) return;
      stop(turn, { kind: 'cancel' }, 'the job was cancelled');
      return;
    case 'timer':
      if (event.generation === turn.state.timer) timerFired(turn); // J7
      return;
    case 'restored':
      if (phase.kind === 'restoring') acquire(turn, event.restore);
      return;
    case 'restoreFailed':
      if (phase.kind === 'restoring') restoreFailed(turn, phase.failures, event);
      return;
    case 'slotsGranted':
      slotsGranted(turn, event);
      return;
    case 'slotsDenied':
      slotsDenied(turn, event);
      return;
    case 'slotReleased':
      slotReleased(turn, event);
      return;
    case 'deployAccepted': {
      const held = turn.state.slots.get(event.allocationId);
      if (phase.kind !== 'executing' || phase.deployment !== event.deployment || held?.use !== 'sent') return;
      turn.setSlot({ ...held, use: 'busy' });
      return;
    }
    case 'deployFailed': {
      if (phase.kind !== 'executing' || phase.deployment !== event.deployment) return;
      const index = turn.state.tasks.findIndex((task) => task.attempt?.allocationId === event.allocationId);
      failover(turn, event.error, { taskIndex: index === -1 ? undefined : index });
      return;
    }
    case 'cancelFailed': {
      if (phase.kind !== 'stopping') return;
      const held = event.allocationIds.flatMap((id) => turn.state.slots.get(id)?.slot ?? []);
      turn.release(held, `its worker could not be told to cancel tasks: ${event.error.message}`);
      return;
    }
    case 'taskReport':
      taskReported(turn, event.report);
      return;
    case 'workerReport':
      workerReported(turn, event);
      return;
    case 'workerLost':
      workerLost(turn, event);
      return;
    case 'failover':
      if (phase.kind === 'executing') failover(turn, event.error, {});
      return;
    default:
      unreachable(event);
  }
}

function timerFired(turn: JobTurn): void {
  const { phase } = turn.state;
  switch (phase.kind) {
    case 'restoreBackoff':
      restore(turn, phase.failures);
      return;
    case 'backoff':
      restore(turn, 0);
      return;
    case 'stopping':
      if (phase.wait === 'registering') {
        turn.enter({ ...phase, wait: 'ending' }, turn.state.status);
        turn.wakeIn(turn.context.job.cancelTimeoutMs);
      } else if (phase.wait === 'ending') {
        turn.enter({ ...phase, wait: 'overdue' }, turn.state.status);
        releaseHeld(turn, (held) => held.use !== 'idle', 'its tasks did not end in time');
      }
      stopped(turn);
      return;
    default:
      return;
  }
}

/** First wait after a checkpoint could not be read; doubled with each failure. */
const RESTORE_RETRY_MS = 500;
const RESTORE_RETRY_MAX_MS = 30_000;
const KEEP_SLOTS_FAILURES = 3;

function restoreFailed(
  turn: JobTurn,
  failures: number,
  event: { readonly error: ErrorInfo; readonly permanent: boolean },
): void {
  const { error } = event;
  if (event.permanent) {
    fail(turn, error, {});
    return;
  }
  // The same outage every few seconds would push everything else out of the bounded history.
  if (failures === 0) turn.emit({ kind: 'recordFailure', error, taskIndex: undefined, taskManagerId: undefined });
  turn.enter({ kind: 'restoreBackoff', failures: failures + 1, reason: error.message }, 'RESTARTING');
  // A blip is not worth new slots; a job that may stay like this for hours must not sit on them.
  if (failures >= KEEP_SLOTS_FAILURES) releaseHeld(turn, () => true, 'the job waits for its checkpoint');
  const baseMs = Math.min(RESTORE_RETRY_MAX_MS, RESTORE_RETRY_MS * 2 ** Math.min(failures, 16));
  turn.wakeIn(baseMs * (0.9 + 0.2 * turn.context.random.next()));
}

function slotsGranted(turn: JobTurn, event: { readonly request: number; readonly slots: readonly Slot[] }): void {
  const { phase, lost } = turn.state;
  if (phase.kind !== 'acquiring' || phase.request?.id !== event.request) {
    turn.release(event.slots, 'no longer needed'); // J6, J7
    return;
  }
  assert(event.slots.length === phase.request.count, 'slots are granted all at once or not at all');
  // A worker may have died between the grant and this turn. That guards one grant: if the worker is
  // granted again it has come back, and a deployment will tell.
  const gone = event.slots.filter((slot) => lost.has(slot.taskManagerId));
  turn.set({ lost: new Set([...lost].filter((worker) => !gone.some((slot) => slot.taskManagerId === worker))) });
  turn.release(gone, 'its worker is lost');
  fillSlots(
    turn,
    event.slots.filter((slot) => !gone.includes(slot)),
  );
  acquire(turn, phase.restore);
}

function slotsDenied(turn: JobTurn, event: JobEvent & { readonly kind: 'slotsDenied' }): void {
  const { phase } = turn.state;
  if (phase.kind !== 'acquiring' || phase.request?.id !== event.request) return; // J7
  if (phase.request.grace) {
    // Keeping part while waiting for the rest is how two jobs wait for each other for ever.
    releaseHeld(turn, () => true, 'asking for all slots together');
    acquire(turn, phase.restore);
    return;
  }
  turn.enter({ ...phase, request: undefined }, turn.state.status);
  // A job that never ran and needs more than there is was asked too much of: asking again would only hide
  // that. One that has run, or meets no workers at all, waits for the cluster to come back.
  const { clusterSlots = 0 } = event;
  const neverRan = turn.state.deployments === 0 && phase.restore.kind === 'fresh';
  const tooLarge = clusterSlots > 0 && clusterSlots < turn.context.job.slotsNeeded;
  if (neverRan && tooLarge && event.error.code === 'NO_RESOURCES') fail(turn, event.error, {});
  else failover(turn, event.error, {});
}

function slotReleased(turn: JobTurn, event: JobEvent & { readonly kind: 'slotReleased' }): void {
  const releasing = new Map(turn.state.releasing);
  if (!releasing.delete(event.allocationId)) return;
  turn.set({ releasing });
  endAttempts(turn, (attempt) => attempt.allocationId === event.allocationId, 'CANCELED');
  stopped(turn);
  deployWhenReady(turn);
}
