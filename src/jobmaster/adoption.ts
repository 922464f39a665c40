import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { Slot } from '../contracts/slots.ts';
import type { WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { AttemptReport } from '../contracts/task.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type TaskManagerId } from '../kernel/ids.ts';
import { judgeRegions, type RegionVerdict, whyNotAdopted } from './adoption-verdict.ts';
import type { FoundAttempt, JobPhase, RestorePoint } from './job-state.ts';
import { end, fail, stop } from './job-transitions.ts';
import type { JobTurn } from './job-turn.ts';
import { restoreRetryMs } from './restore-retry.ts';
import { acquire } from './slot-acquisition.ts';
import { takeOver } from './take-over.ts';

/**
 * The first thing that a new master does with a job: it finds out what runs, and leaves it running.
 *
 * It waits until every task was shown by a worker, or nobody is left who could show one, or the time for
 * that is over; and until it knows the newest completed checkpoint. Then it takes over all regions of
 * which nothing is missing, and only the others are ended and deployed again.
 */
type Adopting = JobPhase & { readonly kind: 'adopting' };

export function beginAdoption(turn: JobTurn): void {
  const { job, nowMs } = turn.context;
  enterAdopting(turn, {
    kind: 'adopting',
    found: new Map(),
    slots: new Map(),
    settled: false,
    settleAtMs: nowMs + job.adoptionTimeoutMs,
    restore: undefined,
    failures: 0,
    reason: undefined,
    retryAtMs: Number.POSITIVE_INFINITY,
  });
  turn.emit({ kind: 'restore' });
}

/** A worker's word on all it holds: it takes the place of its last one. */
export function foundOnWorker(turn: JobTurn, phase: Adopting, report: WorkerReport, claimed: readonly Slot[]): void {
  const { taskManagerId } = report;
  const found = new Map([...phase.found].filter(([, attempt]) => attempt.taskManagerId !== taskManagerId));
  for (const attempt of report.attempts) {
    if (attempt.jobId !== turn.context.job.jobId) continue;
    const before = phase.found.get(attempt.attemptId);
    found.set(attempt.attemptId, { report: newer(before?.report, attempt), taskManagerId });
  }
  const slots = new Map(phase.slots);
  for (const slot of claimed) slots.set(slot.allocationId, slot);
  proceed(turn, { ...phase, found, slots });
}

export function foundReport(turn: JobTurn, phase: Adopting, report: AttemptReport): void {
  const before = phase.found.get(report.attemptId);
  // Its worker has not registered: then the whole list comes, with this in it.
  if (before === undefined) return;
  const next: FoundAttempt = { ...before, report: newer(before.report, report) };
  proceed(turn, { ...phase, found: new Map(phase.found).set(report.attemptId, next) });
}

/** An end is final, whatever arrives later. */
function newer(before: AttemptReport | undefined, report: AttemptReport): AttemptReport {
  return before !== undefined && isTerminalExecutionState(before.state) ? before : report;
}

export function forgetWorker(turn: JobTurn, phase: Adopting, taskManagerId: TaskManagerId): void {
  const there = (held: { readonly taskManagerId: TaskManagerId }) => held.taskManagerId === taskManagerId;
  proceed(turn, {
    ...phase,
    found: new Map([...phase.found].filter(([, attempt]) => !there(attempt))),
    slots: new Map([...phase.slots].filter(([, slot]) => !there(slot))),
  });
}

export function adoptionSettled(turn: JobTurn, phase: Adopting): void {
  enterAdopting(turn, { ...phase, settled: true });
}

export function adoptionRestored(turn: JobTurn, phase: Adopting, restore: RestorePoint): void {
  enterAdopting(turn, { ...phase, restore, reason: undefined });
}

/** The tasks run on while it is tried again: a restart would need the same checkpoint. */
export function adoptionRestoreFailed(
  turn: JobTurn,
  phase: Adopting,
  event: { readonly error: ErrorInfo; readonly permanent: boolean },
): void {
  const { error } = event;
  if (event.permanent) {
    takeWhatIsThere(turn, phase);
    fail(turn, error, {});
    return;
  }
  const { failures } = phase;
  if (failures === 0) turn.emit({ kind: 'recordFailure', error, taskIndex: undefined, taskManagerId: undefined });
  const retryAtMs = turn.context.nowMs + restoreRetryMs(turn, failures);
  enterAdopting(turn, { ...phase, failures: failures + 1, reason: error.message, retryAtMs });
}

export function adoptionTimer(turn: JobTurn, phase: Adopting): void {
  const { nowMs } = turn.context;
  const retry = nowMs >= phase.retryAtMs;
  if (retry) turn.emit({ kind: 'restore' });
  const retryAtMs = retry ? Number.POSITIVE_INFINITY : phase.retryAtMs;
  enterAdopting(turn, { ...phase, retryAtMs, settled: phase.settled || nowMs >= phase.settleAtMs });
}

/** What was found becomes the job's, to be ended with it. */
export function takeWhatIsThere(turn: JobTurn, phase: Adopting): void {
  takeOver(turn, phase, judgeRegions(turn.context.job, phase, 'none'));
}

function enterAdopting(turn: JobTurn, phase: Adopting): void {
  turn.enter(phase, 'RECONCILING');
  const wakeAtMs = Math.min(phase.retryAtMs, phase.settled ? Number.POSITIVE_INFINITY : phase.settleAtMs);
  if (Number.isFinite(wakeAtMs)) turn.wakeIn(wakeAtMs - turn.context.nowMs);
  proceed(turn, phase);
}

function proceed(turn: JobTurn, phase: Adopting): void {
  turn.set({ phase });
  const { restore } = phase;
  if (restore === undefined) return;
  const verdicts = judgeRegions(turn.context.job, phase, restore);
  const complete = verdicts.every((verdict) => verdict.reason === undefined);
  if (complete || phase.settled) adopt(turn, phase, restore, verdicts);
}

function adopt(turn: JobTurn, phase: Adopting, restore: RestorePoint, verdicts: readonly RegionVerdict[]): void {
  takeOver(turn, phase, verdicts);
  const reason = whyNotAdopted(turn.context.job, phase, verdicts);
  if (reason !== undefined) turn.emit({ kind: 'notAdopted', reason });
  const refused = new Set(verdicts.filter((verdict) => verdict.reason !== undefined).map((verdict) => verdict.region));
  if (refused.size === verdicts.length) {
    // Nothing was ever deployed, or nothing is left of it: the way of a first start.
    if (phase.found.size === 0) acquire(turn, restore);
    else stop(turn, { kind: 'restart', restartAtMs: turn.context.nowMs }, `not adopted: ${reason}`, 'all');
    return;
  }
  turn.set({ restarting: new Set() });
  turn.enter({ kind: 'executing', deployment: newestOf(phase.found) }, 'RUNNING');
  turn.emit({ kind: 'adopt', restore, complete: refused.size === 0 });
  if (turn.state.tasks.every((task) => task.state === 'FINISHED')) end(turn, 'FINISHED', undefined);
  else if (refused.size > 0)
    stop(turn, { kind: 'restart', restartAtMs: turn.context.nowMs }, `not adopted: ${reason}`, refused);
}

function newestOf(found: ReadonlyMap<AttemptId, FoundAttempt>): DeploymentId {
  return [...found.values()]
    .map(({ report }) => report.deployment)
    .reduce((a, b) => (compareDeployments(a, b) < 0 ? b : a));
}
