import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { AttemptReport } from '../contracts/task.ts';
import type { WorkerReport } from '../contracts/task-manager-gateway.ts';
import { taskKey } from '../graph/execution-graph.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { AllocationId, AttemptId, TaskManagerId } from '../kernel/ids.ts';
import type { Slot } from '../contracts/slots.ts';
import { forgetWorker, foundOnWorker, foundReport } from './adoption.ts';
import { acquire, deployWhenReady } from './slot-acquisition.ts';
import {
  alsoRestart,
  endAttempts,
  end,
  explainedByLoss,
  explainedOtherwise,
  failover,
  stopped,
} from './job-transitions.ts';
import type { JobTurn } from './job-turn.ts';
import { busy, isRestarting, regionsOf } from './regions.ts';
import { advance, isLive, isSpoiled } from './task-states.ts';

/**
 * So many reports in a row must miss an attempt that the worker had taken before it counts as lost: a
 * report may have left before the tasks arrived, and a slot's own list may be one report old.
 */
const MISSING_MAX = 3;

/** Lost workers that are remembered; only those of the last moments matter. */
const LOST_MAX = 256;

/** A worker's word on one attempt. */
export function taskReported(turn: JobTurn, report: AttemptReport): void {
  if (turn.state.phase.kind === 'adopting') {
    foundReport(turn, turn.state.phase, report);
    return;
  }
  const index = turn.state.indexOf.get(report.attemptId);
  if (index !== undefined) applyReport(turn, index, report);
}

function applyReport(turn: JobTurn, index: number, report: AttemptReport): void {
  const task = turn.state.tasks[index];
  if (task?.attempt === undefined) return;
  const held = turn.state.slots.get(task.attempt.allocationId);
  // Whoever speaks of an attempt has received it.
  if (held?.use === 'sent' && held.sent === task.attempt.deployment) turn.setSlot(busy(held));
  let next = advance(task, report.state, turn.context.wallMs); // J4
  if (report.endOfData && !next.endOfData) next = { ...next, endOfData: true };
  if (report.drained === true && !next.drained) next = { ...next, drained: true };
  if (report.peerLost === true && next.state === 'FAILED' && next !== task) next = { ...next, peerLost: true };
  if (next.missing > 0) next = { ...next, missing: 0 };
  turn.setTask(index, next);
  if (next.state !== task.state && isTerminalExecutionState(next.state)) attemptEnded(turn, index, report.error);
}

function attemptEnded(turn: JobTurn, index: number, error: ErrorInfo | undefined): void {
  const { phase, tasks } = turn.state;
  const task = tasks[index];
  if (task?.attempt === undefined) return;
  const { allocationId } = task.attempt;
  if (!isRestarting(turn, index)) {
    if (task.state === 'FINISHED') {
      if (tasks.every((other) => other.state === 'FINISHED')) end(turn, 'FINISHED', undefined);
      return;
    }
    const name = turn.context.job.tasks[index]?.name ?? 'a task';
    const unexplained: ErrorInfo =
      task.state === 'FAILED'
        ? { code: 'INTERNAL', message: 'the task failed without a reason' }
        : { code: 'UNAVAILABLE', message: `${name} was ended by its worker` };
    failover(turn, error ?? unexplained, { taskIndex: index, peerLost: task.peerLost }, regionsOf(turn, [index]));
    return;
  }
  if (phase.kind !== 'stopping') return;
  if (isSpoiled(task)) explainedOtherwise(turn);
  const held = turn.state.slots.get(allocationId);
  const inSlot = tasks.filter((other) => other.attempt?.allocationId === allocationId);
  if (held !== undefined && !inSlot.some(isLive)) {
    if (inSlot.some(isSpoiled)) turn.release([held.slot], 'a task failed there');
    else turn.setSlot({ slot: held.slot, slotNumber: held.slotNumber, use: 'idle' });
  }
  stopped(turn);
}

/** A worker has registered or answered a heartbeat: reconciles what it holds with what it should. */
export function workerReported(
  turn: JobTurn,
  event: { readonly registered: boolean; readonly report: WorkerReport; readonly claimed?: readonly Slot[] },
): void {
  const { report } = event;
  const { taskManagerId } = report;
  if (turn.state.phase.kind === 'adopting') {
    foundOnWorker(turn, turn.state.phase, report, event.claimed ?? []);
    return;
  }
  if (event.registered && turn.state.lost.has(taskManagerId)) {
    const lost = new Set(turn.state.lost);
    lost.delete(taskManagerId);
    turn.set({ lost });
  }
  const listed = new Set<AttemptId>();
  const strays: AttemptReport[] = [];
  for (const attempt of report.attempts) {
    if (attempt.jobId !== turn.context.job.jobId) continue;
    listed.add(attempt.attemptId);
    const index = turn.state.indexOf.get(attempt.attemptId);
    if (index !== undefined) applyReport(turn, index, attempt);
    else strays.push(attempt);
  }
  endStrays(turn, strays, event);
  missedAttempts(turn, taskManagerId, listed);
}

/**
 * Attempts of older deployments are ended; slots that an older term left with this job are given back.
 *
 * While a request is open only a registration is acted upon: a slot in a heartbeat may be ours in a
 * moment, also one with older tasks, because a provider may grant a job its former slots again.
 */
function endStrays(
  turn: JobTurn,
  strays: readonly AttemptReport[],
  event: { readonly registered: boolean; readonly report: WorkerReport },
): void {
  const { taskManagerId, slots } = event.report;
  const leftovers = new Set<AllocationId>();
  for (const stray of strays) {
    rememberAttemptNumber(turn, stray);
    if (isTerminalExecutionState(stray.state)) continue;
    const held = turn.state.slots.get(stray.allocationId);
    if (held === undefined) leftovers.add(stray.allocationId);
    else turn.emit({ kind: 'cancelTasks', slot: held.slot, attemptIds: [stray.attemptId] });
  }
  const { phase, releasing } = turn.state;
  if (!event.registered && phase.kind === 'acquiring' && phase.request !== undefined) return;
  for (const { allocation } of slots) {
    if (allocation?.jobId !== turn.context.job.jobId || turn.state.slots.has(allocation.allocationId)) continue;
    leftovers.add(allocation.allocationId);
  }
  const unknown = [...leftovers].filter((id) => !releasing.has(id));
  turn.release(
    unknown.map((allocationId) => ({ allocationId, taskManagerId })),
    'left over from an older deployment',
  );
}

/** J1: attempt numbers rise over terms too, as far as workers remember. */
function rememberAttemptNumber(turn: JobTurn, stray: AttemptReport): void {
  const key = taskKey(stray.vertexId, stray.subtaskIndex);
  const index = turn.context.job.tasks.findIndex((task) => task.key === key);
  const task = turn.state.tasks[index];
  if (task === undefined || task.lastAttemptNumber >= stray.attemptNumber) return;
  turn.set({ tasks: turn.state.tasks.with(index, { ...task, lastAttemptNumber: stray.attemptNumber }) });
}

function missedAttempts(turn: JobTurn, taskManagerId: TaskManagerId, listed: ReadonlySet<AttemptId>): void {
  const { tasks, slots } = turn.state;
  tasks.forEach((_, index) => {
    const task = turn.state.tasks[index];
    if (task?.attempt === undefined || !isLive(task)) return;
    const { attempt } = task;
    if (attempt.taskManagerId !== taskManagerId || listed.has(attempt.attemptId)) return;
    if (slots.get(attempt.allocationId)?.use !== 'busy') return;
    const missing = task.missing + 1;
    turn.set({ tasks: turn.state.tasks.with(index, { ...task, missing }) });
    if (missing < MISSING_MAX) return;
    const message = `${turn.context.job.tasks[index]?.name ?? 'a task'} is no longer held by its worker ${taskManagerId}`;
    turn.setTask(index, advance({ ...task, missing }, 'FAILED', turn.context.wallMs));
    attemptEnded(turn, index, { code: 'UNAVAILABLE', message });
  });
}

/** Dead, cut off, or gone by itself: what it ran has ended as far as this job is concerned. */
export function workerLost(
  turn: JobTurn,
  event: { readonly taskManagerId: TaskManagerId; readonly reason: string },
): void {
  const { taskManagerId } = event;
  const before = turn.state.slots.size;
  if (turn.state.phase.kind === 'adopting') forgetWorker(turn, turn.state.phase, taskManagerId);
  turn.set({
    lost: new Set([...[...turn.state.lost].slice(1 - LOST_MAX), taskManagerId]),
    slots: new Map([...turn.state.slots].filter(([, held]) => held.slot.taskManagerId !== taskManagerId)),
    releasing: new Map([...turn.state.releasing].filter(([, worker]) => worker !== taskManagerId)),
  });
  const explained = explainedByLoss(turn, taskManagerId);
  const ended = endAttempts(turn, (attempt) => attempt.taskManagerId === taskManagerId, 'FAILED');
  const { phase } = turn.state;
  const unexpected = ended.filter((index) => !isRestarting(turn, index));
  const error: ErrorInfo = { code: 'UNAVAILABLE', message: `worker ${taskManagerId} is lost: ${event.reason}` };
  // For people: until now only those were heard of that had lost it.
  if (explained) turn.emit({ kind: 'recordFailure', error, taskIndex: undefined, taskManagerId });
  if (unexpected.length > 0) {
    const regions = regionsOf(turn, unexpected);
    if (explained) alsoRestart(turn, regions);
    else failover(turn, error, { taskIndex: unexpected[0], taskManagerId }, regions);
    return;
  }
  stopped(turn);
  if (phase.kind === 'acquiring' && turn.state.slots.size < before) {
    if (phase.request !== undefined) turn.emit({ kind: 'abandonRequest', request: phase.request.id });
    acquire(turn, phase.restore);
    return;
  }
  // The leftovers that were waited for may have been on that worker.
  deployWhenReady(turn);
}
