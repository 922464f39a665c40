import type { ExecutionState } from '../contracts/job-status.ts';
import { assert } from '../kernel/assert.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { AttemptId, TaskManagerId } from '../kernel/ids.ts';
import type { Attempt, HeldSlot, StopReason } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { decideRestart } from './restart-strategy.ts';
import { advance, isLive } from './task-states.ts';

/** Reads the newest checkpoint. */
export function restore(turn: JobTurn, failures: number): void {
  turn.enter({ kind: 'restoring', failures }, turn.state.status);
  turn.emit({ kind: 'restore' });
}

/** Where a failure was seen, as far as anybody knows. */
export interface FailureSite {
  readonly taskIndex?: number | undefined;
  readonly taskManagerId?: TaskManagerId;
}

/** The job cannot go on like this: everything ends, and begins again if the restart strategy says so. */
export function failover(turn: JobTurn, error: ErrorInfo, site: FailureSite): void {
  const { job, nowMs, random } = turn.context;
  const { history, decision } = decideRestart(job.strategy, turn.state.failures, nowMs, random);
  turn.set({ failures: history });
  if (decision.kind === 'give-up') {
    fail(turn, error, site);
    return;
  }
  recordFailure(turn, error, site);
  turn.set({ restarts: turn.state.restarts + 1 });
  stop(turn, { kind: 'restart', restartAtMs: nowMs + decision.delayMs }, 'the job restarts');
}

/** No restart can help, or none is left. */
export function fail(turn: JobTurn, error: ErrorInfo, site: FailureSite): void {
  recordFailure(turn, error, site);
  stop(turn, { kind: 'fail', error }, 'the job fails');
}

function recordFailure(turn: JobTurn, error: ErrorInfo, { taskIndex, taskManagerId }: FailureSite): void {
  const attempt = taskIndex === undefined ? undefined : turn.state.tasks[taskIndex]?.attempt;
  turn.emit({ kind: 'recordFailure', error, taskIndex, taskManagerId: taskManagerId ?? attempt?.taskManagerId });
}

const STATUS_OF = { restart: 'RESTARTING', fail: 'FAILING', cancel: 'CANCELLING' } as const;

/** Ends everything that runs, then goes on as `then` says. */
export function stop(turn: JobTurn, then: StopReason, reason: string, wait: 'registering' | 'ending' = 'ending'): void {
  const { job } = turn.context;
  const { phase } = turn.state;
  assert(phase.kind !== 'ended', 'J3: terminal is terminal');
  if (phase.kind === 'stopping') {
    // The tasks are being ended already; only what follows is another.
    turn.enter({ ...phase, then }, STATUS_OF[then.kind]);
    if (phase.wait !== 'overdue') turn.wakeIn(job.cancelTimeoutMs);
    stopped(turn);
    return;
  }
  if (phase.kind === 'acquiring' && phase.request !== undefined) {
    turn.emit({ kind: 'abandonRequest', request: phase.request.id });
  }
  if (phase.kind === 'executing') turn.emit({ kind: 'stopCheckpoints', reason });
  turn.enter({ kind: 'stopping', then, wait }, STATUS_OF[then.kind]);
  turn.wakeIn(wait === 'registering' ? job.registrationGraceMs : job.cancelTimeoutMs);
  for (const held of turn.state.slots.values()) endTasks(turn, held, reason);
  stopped(turn);
}

function endTasks(turn: JobTurn, held: HeldSlot, reason: string): void {
  const { allocationId } = held.slot;
  const inSlot = [...turn.state.tasks.entries()].filter(([, task]) => task.attempt?.allocationId === allocationId);
  // A cancellation could overtake tasks that nobody has confirmed to have arrived: only taking the slot
  // away is sure to end them. And a slot whose task failed may hold what the failure left behind.
  const failed = inSlot.some(([, task]) => task.state === 'FAILED');
  if (held.use === 'sent' || (held.use === 'busy' && failed)) {
    turn.release([held.slot], reason);
    return;
  }
  const attemptIds: AttemptId[] = [];
  for (const [index, task] of inSlot) {
    if (task.attempt === undefined || !isLive(task)) continue;
    attemptIds.push(task.attempt.attemptId);
    turn.setTask(index, advance(task, 'CANCELING', turn.context.wallMs));
  }
  if (attemptIds.length === 0) turn.setSlot({ ...held, use: 'idle' });
  else turn.emit({ kind: 'cancelTasks', slot: held.slot, attemptIds });
}

/** Gives back the held slots that `which` picks. */
export function releaseHeld(turn: JobTurn, which: (held: HeldSlot) => boolean, reason: string): void {
  turn.release(
    [...turn.state.slots.values()].filter(which).map((held) => held.slot),
    reason,
  );
}

/** The attempts that `which` picks have ended, because where they ran is gone. Returns their indexes. */
export function endAttempts(
  turn: JobTurn,
  which: (attempt: Attempt) => boolean,
  state: Extract<ExecutionState, 'CANCELED' | 'FAILED'>,
): readonly number[] {
  const ended: number[] = [];
  turn.state.tasks.forEach((task, index) => {
    if (task.attempt === undefined || !isLive(task) || !which(task.attempt)) return;
    turn.setTask(index, advance(task, state, turn.context.wallMs));
    ended.push(index);
  });
  return ended;
}

/** Called after anything may have ended: goes on when nothing runs any more. */
export function stopped(turn: JobTurn): void {
  const { phase, tasks, releasing } = turn.state;
  if (phase.kind !== 'stopping' || phase.wait === 'registering') return;
  if (tasks.some(isLive) || releasing.size > 0) return;
  const { then } = phase;
  switch (then.kind) {
    case 'restart': {
      const waitMs = then.restartAtMs - turn.context.nowMs;
      if (waitMs <= 0) {
        restore(turn, 0);
        return;
      }
      turn.enter({ kind: 'backoff', restartAtMs: then.restartAtMs }, 'RESTARTING');
      turn.wakeIn(waitMs);
      return;
    }
    case 'fail':
      end(turn, 'FAILED', then.error);
      return;
    case 'cancel':
      end(turn, 'CANCELED', undefined);
      return;
  }
}

/** J5: nothing runs. */
export function end(turn: JobTurn, status: 'FINISHED' | 'CANCELED' | 'FAILED', error: ErrorInfo | undefined): void {
  assert(!turn.state.tasks.some(isLive), 'J5: a job ends when nothing of it runs');
  turn.emit({ kind: 'stopCheckpoints', reason: `the job is ${status}` });
  turn.state.tasks.forEach((task, index) => {
    turn.setTask(index, advance(task, 'CANCELED', turn.context.wallMs));
  });
  turn.enter({ kind: 'ended', status, error }, status);
  releaseHeld(turn, () => true, `the job is ${status}`);
  turn.emit({ kind: 'ended', status, error });
}
