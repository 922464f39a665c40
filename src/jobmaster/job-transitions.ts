import type { ExecutionState } from '../contracts/job-status.ts';
import { assert, present } from '../kernel/assert.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { AttemptId, TaskManagerId } from '../kernel/ids.ts';
import type { Attempt, HeldSlot, JobPhase, StopReason } from './job-state.ts';
import type { JobTurn } from './job-turn.ts';
import { allRegions, isPartial, isRestarting, regionsOf, restartingAlive, tasksOf } from './regions.ts';
import { decideRestart } from './restart-strategy.ts';
import { advance, isLive, isSpoiled } from './task-states.ts';

/** Reads the newest checkpoint. */
export function restore(turn: JobTurn, failures: number): void {
  turn.enter({ kind: 'restoring', failures }, turn.state.status);
  turn.emit({ kind: 'restore' });
}

/** Where a failure was seen, as far as anybody knows. */
export interface FailureSite {
  readonly taskIndex?: number | undefined;
  /** Lost with all that ran there. */
  readonly taskManagerId?: TaskManagerId;
  /** The task has only lost another one; why, is not known yet. */
  readonly peerLost?: boolean;
}

/** The regions cannot go on like this: they end, and begin again if the restart strategy says so. */
export function failover(
  turn: JobTurn,
  error: ErrorInfo,
  site: FailureSite,
  regions: ReadonlySet<number> | 'all',
): void {
  const { job, nowMs, random } = turn.context;
  const { history, decision } = decideRestart(job.strategy, turn.state.failures, nowMs, random);
  turn.set({ failures: history });
  if (decision.kind === 'give-up') {
    fail(turn, error, site);
    return;
  }
  recordFailure(turn, error, site);
  turn.set({ restarts: turn.state.restarts + 1 });
  const lossAtMs = nowMs + decision.afterLossMs;
  const restartAtMs = site.taskManagerId === undefined ? nowMs + decision.delayMs : lossAtMs;
  const ifWorkerLostAtMs = site.peerLost === true ? lossAtMs : undefined;
  stop(turn, { kind: 'restart', restartAtMs, ifWorkerLostAtMs }, RESTARTS, regions);
}

const RESTARTS = 'the job restarts';

/**
 * A worker is lost: whether that is why the regions that restart have failed. Tasks notice that they have lost
 * others before the death of a process is proved. It is one and the same failure: it counts once, and nothing
 * is gained by waiting.
 */
export function explainedByLoss(turn: JobTurn, taskManagerId: TaskManagerId): boolean {
  const { phase, tasks } = turn.state;
  if (!tasks.some((task, index) => task.attempt?.taskManagerId === taskManagerId && isRestarting(turn, index)))
    return false;
  const restart = restartOf(phase);
  if (restart?.ifWorkerLostAtMs === undefined) return false;
  const { ifWorkerLostAtMs } = restart;
  const then = { restartAtMs: ifWorkerLostAtMs, ifWorkerLostAtMs };
  if (phase.kind === 'stopping') turn.set({ phase: { ...phase, then: { kind: 'restart', ...then } } });
  else {
    turn.enter({ kind: 'backoff', ...then }, turn.state.status);
    turn.wakeIn(ifWorkerLostAtMs - turn.context.nowMs);
  }
  return true;
}

/** The same failure concerns these regions, too. */
export function alsoRestart(turn: JobTurn, regions: ReadonlySet<number> | 'all'): void {
  const restartAtMs = restartOf(turn.state.phase)?.restartAtMs ?? turn.context.nowMs;
  stop(turn, { kind: 'restart', restartAtMs }, RESTARTS, regions);
}

function restartOf(
  phase: JobPhase,
): Extract<JobPhase, { kind: 'backoff' }> | Extract<StopReason, { kind: 'restart' }> | undefined {
  if (phase.kind === 'backoff') return phase;
  return phase.kind === 'stopping' && phase.then.kind === 'restart' ? phase.then : undefined;
}

/** A task failed by itself: the loss of a worker is not the reason, or not the only one. */
export function explainedOtherwise(turn: JobTurn): void {
  const { phase } = turn.state;
  if (phase.kind !== 'stopping' || phase.then.kind !== 'restart') return;
  turn.set({ phase: { ...phase, then: { ...phase.then, ifWorkerLostAtMs: undefined } } });
}

/** No restart can help, or none is left. */
export function fail(turn: JobTurn, error: ErrorInfo, site: FailureSite): void {
  recordFailure(turn, error, site);
  stop(turn, { kind: 'fail', error }, 'the job fails', 'all');
}

function recordFailure(turn: JobTurn, error: ErrorInfo, { taskIndex, taskManagerId }: FailureSite): void {
  const attempt = taskIndex === undefined ? undefined : turn.state.tasks[taskIndex]?.attempt;
  turn.emit({ kind: 'recordFailure', error, taskIndex, taskManagerId: taskManagerId ?? attempt?.taskManagerId });
}

const STATUS_OF = { restart: 'RESTARTING', fail: 'FAILING', cancel: 'CANCELLING' } as const;

/** Ends what runs of the regions, then goes on as `then` says. */
export function stop(
  turn: JobTurn,
  then: StopReason,
  reason: string,
  regions: ReadonlySet<number> | 'all',
  wait: 'registering' | 'ending' = 'ending',
): void {
  const { job } = turn.context;
  const { phase } = turn.state;
  assert(phase.kind !== 'ended', 'J3: terminal is terminal');
  const joining = then.kind === 'restart' && regions !== 'all' ? regions : allRegions(turn);
  turn.set({ restarting: new Set([...turn.state.restarting, ...joining]) });
  if (phase.kind === 'stopping') {
    const next = stronger(phase.then, then);
    turn.enter({ ...phase, then: next }, STATUS_OF[next.kind]);
    if (phase.wait !== 'overdue') turn.wakeIn(job.cancelTimeoutMs);
  } else {
    if (phase.kind === 'acquiring' && phase.request !== undefined)
      turn.emit({ kind: 'abandonRequest', request: phase.request.id });
    turn.enter({ kind: 'stopping', then, wait }, STATUS_OF[then.kind]);
    turn.wakeIn(wait === 'registering' ? job.registrationGraceMs : job.cancelTimeoutMs);
  }
  const at = turn.effects.length;
  endRestarting(turn, reason);
  // Before the tasks end: only now is it known how many do.
  if (phase.kind === 'executing')
    turn.effects.splice(at, 0, { kind: 'stopCheckpoints', reason, partly: isPartial(turn) });
  stopped(turn);
}

/** To end the job outweighs to restart it. */
function stronger(a: StopReason, b: StopReason): StopReason {
  if (b.kind !== 'restart') return b;
  if (a.kind !== 'restart') return a;
  const restartAtMs = Math.max(a.restartAtMs, b.restartAtMs);
  const { ifWorkerLostAtMs: first, restartAtMs: firstAtMs } = a;
  const { ifWorkerLostAtMs: second, restartAtMs: secondAtMs } = b;
  const ifWorkerLostAtMs =
    first === undefined && second === undefined ? undefined : Math.max(first ?? firstAtMs, second ?? secondAtMs);
  return { kind: 'restart', restartAtMs, ifWorkerLostAtMs };
}

/** Ends the tasks of all that restarts. A slot that has to be taken away takes the other regions in it along. */
function endRestarting(turn: JobTurn, reason: string): void {
  for (;;) {
    const before = turn.state.restarting.size;
    for (const held of [...turn.state.slots.values()]) endTasks(turn, held, reason);
    if (turn.state.restarting.size === before) return;
  }
}

function endTasks(turn: JobTurn, held: HeldSlot, reason: string): void {
  const inSlot = tasksOf(turn, held.slot);
  const ending = inSlot.filter((index) => isRestarting(turn, index));
  const shared = inSlot.some((index) => !isRestarting(turn, index) && isLive(present(turn.state.tasks[index], 'task')));
  const attemptOf = (index: number) => turn.state.tasks[index]?.attempt;
  // A cancellation could overtake tasks that nobody has confirmed to have arrived: only taking the slot
  // away is sure to end them. And a slot whose task failed may hold what the failure left behind, unless
  // others still run there. A task that only lost another ends as one that is cancelled: its slot, and the
  // thread in it with the program that it has loaded, serve the next attempt.
  const unsure = held.use === 'sent' && ending.some((index) => attemptOf(index)?.deployment === held.sent);
  const failed = ending.some((index) => isSpoiled(present(turn.state.tasks[index], 'task')));
  if (unsure || (held.use === 'busy' && failed && !shared)) {
    giveBack(turn, [held], reason);
    return;
  }
  const attemptIds: AttemptId[] = [];
  for (const index of ending) {
    const task = turn.state.tasks[index];
    if (task?.attempt === undefined || !isLive(task) || task.state === 'CANCELING') continue;
    attemptIds.push(task.attempt.attemptId);
    turn.setTask(index, advance(task, 'CANCELING', turn.context.wallMs));
  }
  if (attemptIds.length > 0) turn.emit({ kind: 'cancelTasks', slot: held.slot, attemptIds });
  else if (!inSlot.some((index) => isLive(present(turn.state.tasks[index], 'task')))) turn.setSlot(idle(held));
}

function idle({ slot, slotNumber }: HeldSlot): HeldSlot {
  return { slot, slotNumber, use: 'idle' };
}

/** Gives slots back; whatever runs there, of whichever region, is over and restarts. */
function giveBack(turn: JobTurn, held: readonly HeldSlot[], reason: string): void {
  const ended = held
    .flatMap(({ slot }) => tasksOf(turn, slot))
    .filter((index) => isLive(present(turn.state.tasks[index], 'task')));
  turn.set({ restarting: new Set([...turn.state.restarting, ...regionsOf(turn, ended)]) });
  turn.release(
    held.map(({ slot }) => slot),
    reason,
  );
}

/** As `giveBack`, while stopping: what the slots take along is ended in the other slots, too. */
export function takeAway(turn: JobTurn, held: readonly HeldSlot[], reason: string): void {
  if (held.length === 0) return;
  giveBack(turn, held, reason);
  endRestarting(turn, reason);
}

/** Slots in which something of what restarts has not ended. */
export function slotsWithLiveTasks(turn: JobTurn): readonly HeldSlot[] {
  return [...turn.state.slots.values()].filter(({ slot }) =>
    tasksOf(turn, slot).some((index) => isRestarting(turn, index) && isLive(present(turn.state.tasks[index], 'task'))),
  );
}

/** Gives back the held slots in which nothing runs. */
export function releaseIdle(turn: JobTurn, reason: string): void {
  const live = (index: number) => isLive(present(turn.state.tasks[index], 'task'));
  releaseHeld(turn, ({ slot }) => !tasksOf(turn, slot).some(live), reason);
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
  const { phase, releasing } = turn.state;
  if (phase.kind !== 'stopping' || phase.wait === 'registering') return;
  if (restartingAlive(turn) || releasing.size > 0) return;
  const { then } = phase;
  switch (then.kind) {
    case 'restart': {
      const waitMs = then.restartAtMs - turn.context.nowMs;
      if (waitMs <= 0) {
        restore(turn, 0);
        return;
      }
      const { restartAtMs, ifWorkerLostAtMs } = then;
      turn.enter({ kind: 'backoff', restartAtMs, ifWorkerLostAtMs }, 'RESTARTING');
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
  turn.emit({ kind: 'stopCheckpoints', reason: `the job is ${status}`, partly: false });
  turn.state.tasks.forEach((task, index) => {
    turn.setTask(index, advance(task, 'CANCELED', turn.context.wallMs));
  });
  turn.enter({ kind: 'ended', status, error }, status);
  releaseHeld(turn, () => true, `the job is ${status}`);
  turn.emit({ kind: 'ended', status, error });
}
