import { jobStatusSchema, type JobStatus } from '../contracts/job-status.ts';
import type { Slot } from '../contracts/slots.ts';
import { assert, unreachable } from '../kernel/assert.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { JobConstants, JobEffect, JobEvent, JobPhase, JobState } from './job-state.ts';
import {
  adoptionRestored,
  adoptionRestoreFailed,
  adoptionSettled,
  adoptionTimer,
  beginAdoption,
  takeWhatIsThere,
} from './adoption.ts';
import { restoreRetryMs } from './restore-retry.ts';
import {
  alsoRestart,
  endAttempts,
  fail,
  failover,
  releaseHeld,
  releaseIdle,
  restore,
  slotsWithLiveTasks,
  stop,
  stopped,
  takeAway,
} from './job-transitions.ts';
import { busy, isPartial, isRestarting, regionsOf, tasksOf } from './regions.ts';
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
 *   J2. No region is deployed while an older attempt of it may be alive: each has ended, or its slot was
 *       given back, or its worker is lost.
 *   J3. Terminal is terminal: after `ended` nothing is requested, deployed or restarted.
 *   J4. The first end of an attempt counts; no state of an attempt ever goes back.
 *   J5. The job ends only when nothing of it runs.
 *   J6. Every slot ever granted is held, given back, or gone with its worker.
 *   J7. Answers to questions of the past (requests, timers, deployments) change nothing.
 *   J8. A failure ends the regions that it touches and no others; adoption ends nothing.
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
    restarting: new Set(job.tasks.map((task) => task.region)),
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
      if (event.cancelRequested) stop(turn, { kind: 'cancel' }, 'cancelled before this term', 'all', 'registering');
      else if (event.adopt === true) beginAdoption(turn);
      else restore(turn, 0);
      return;
    case 'cancel':
      if (phase.kind === 'ended' || (phase.kind === 'stopping' && phase.then.kind === 'cancel')) return;
      if (phase.kind === 'adopting') takeWhatIsThere(turn, phase);
      stop(turn, { kind: 'cancel' }, 'the job was cancelled', 'all');
      return;
    case 'timer':
      if (event.generation === turn.state.timer) timerFired(turn); // J7
      return;
    case 'restored':
      if (phase.kind === 'restoring') acquire(turn, event.restore);
      else if (phase.kind === 'adopting') adoptionRestored(turn, phase, event.restore);
      return;
    case 'restoreFailed':
      if (phase.kind === 'restoring') restoreFailed(turn, phase.failures, event);
      else if (phase.kind === 'adopting') adoptionRestoreFailed(turn, phase, event);
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
      if (held?.use === 'sent' && held.sent === event.deployment) turn.setSlot(busy(held));
      return;
    }
    case 'deployFailed': {
      const failed = tasksOf(turn, event).filter((index) => !isRestarting(turn, index));
      if (failed.length > 0) failover(turn, event.error, { taskIndex: failed[0] }, regionsOf(turn, failed));
      return;
    }
    case 'cancelFailed': {
      if (phase.kind !== 'stopping') return;
      const held = event.allocationIds.flatMap((id) => turn.state.slots.get(id) ?? []);
      takeAway(turn, held, `its worker could not be told to cancel tasks: ${event.error.message}`);
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
    case 'workersSettled':
      workersSettled(turn);
      return;
    case 'failover':
      if (phase.kind === 'executing') failover(turn, event.error, {}, 'all');
      else if (isPartial(turn)) {
        // What ended a drained savepoint, say: the regions that were to go on have come to their end already.
        turn.emit({ kind: 'recordFailure', error: event.error, taskIndex: undefined, taskManagerId: undefined });
        alsoRestart(turn, 'all');
      }
      return;
    default:
      unreachable(event);
  }
}

function timerFired(turn: JobTurn): void {
  const { phase } = turn.state;
  switch (phase.kind) {
    case 'adopting':
      adoptionTimer(turn, phase);
      return;
    case 'restoreBackoff':
      restore(turn, phase.failures);
      return;
    case 'backoff':
      restore(turn, 0);
      return;
    case 'stopping':
      if (phase.wait === 'registering') {
        endOfRegistering(turn, phase);
        return;
      }
      if (phase.wait === 'ending') {
        turn.enter({ ...phase, wait: 'overdue' }, turn.state.status);
        takeAway(turn, slotsWithLiveTasks(turn), 'its tasks did not end in time');
      }
      stopped(turn);
      return;
    default:
      return;
  }
}

function workersSettled(turn: JobTurn): void {
  const { phase } = turn.state;
  if (phase.kind === 'adopting') adoptionSettled(turn, phase);
  else if (phase.kind === 'stopping' && phase.wait === 'registering') endOfRegistering(turn, phase);
}

function endOfRegistering(turn: JobTurn, phase: JobPhase & { readonly kind: 'stopping' }): void {
  turn.enter({ ...phase, wait: 'ending' }, turn.state.status);
  turn.wakeIn(turn.context.job.cancelTimeoutMs);
  stopped(turn);
}

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
  if (failures >= KEEP_SLOTS_FAILURES) releaseIdle(turn, 'the job waits for its checkpoint');
  turn.wakeIn(restoreRetryMs(turn, failures));
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
  const { clusterSlots = 0 } = event;
  if (phase.request.grace && isPartial(turn)) {
    // The regions that go on cannot complete a checkpoint without the others: nothing they do is ever committed.
    stop(turn, { kind: 'restart', restartAtMs: turn.context.nowMs }, 'asking for all slots together', 'all');
    return;
  }
  if (phase.request.grace) {
    // Keeping part while waiting for the rest is how two jobs wait for each other for ever.
    releaseHeld(turn, () => true, 'asking for all slots together');
    acquire(turn, phase.restore);
    return;
  }
  turn.enter({ ...phase, request: undefined }, turn.state.status);
  // A job that never ran and needs more than there is was asked too much of: asking again would only hide
  // that. One that has run, or meets no workers at all, waits for the cluster to come back.
  const neverRan = turn.state.deployments === 0 && phase.restore.kind === 'fresh';
  const tooLarge = clusterSlots > 0 && clusterSlots < turn.context.job.slotsNeeded;
  if (neverRan && tooLarge && event.error.code === 'NO_RESOURCES') fail(turn, event.error, {});
  else failover(turn, event.error, {}, 'all');
}

function slotReleased(turn: JobTurn, event: JobEvent & { readonly kind: 'slotReleased' }): void {
  const releasing = new Map(turn.state.releasing);
  if (!releasing.delete(event.allocationId)) return;
  turn.set({ releasing });
  endAttempts(turn, (attempt) => attempt.allocationId === event.allocationId, 'CANCELED');
  stopped(turn);
  deployWhenReady(turn);
}
