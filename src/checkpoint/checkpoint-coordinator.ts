import type { CheckpointConfig } from '../contracts/job-graph.ts';
import type { CheckpointAck } from '../contracts/task.ts';
import { type TaskKey, taskKey } from '../graph/execution-graph.ts';
import { assert, unreachable } from '../kernel/assert.ts';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { DeploymentId } from '../kernel/ids.ts';
import type {
  AckOutcome,
  CoordinatorEffect,
  CoordinatorEvent,
  CoordinatorState,
  CoordinatorStep,
  PendingCheckpoint,
  Run,
  RunTask,
  RunTaskStage,
} from './coordinator-state.ts';

/**
 * When checkpoints begin, complete and fail, as a pure step function.
 *
 * Invariants:
 *   K1. Ids strictly rise; each was reserved before it is used.
 *   K2. An acknowledgement counts once per (vertex, subtask), and only from the attempt that runs now.
 *   K3. A checkpoint is committed only with every acknowledgement that it needs.
 *   K4. Nobody is told of a completed checkpoint before its pointer is durable.
 *   K5. Once a checkpoint is being committed nothing aborts or discards it but the certain knowledge
 *       that its pointer was not written: an unknown outcome is not a failure.
 *   K6. Objects are discarded only of checkpoints known to be aborted.
 *   K8. A savepoint is the user's: it neither subsumes nor aborts checkpoints, counts for none of their limits
 *       but the number at once, and no sink commits by it, save one with which the job stops.
 *   K9. A task that was drained goes on only for the savepoint of a stop: while that is under way or once it has completed.
 *   K7. After `fenced` nothing is done any more, not even tidying up: it is the next leader's.
 */

/** After an id could not be reserved: the coordination store is away, so the answer is patience. */
const RESERVE_RETRY_MS = 1_000;
const FINAL_RETRY_MS = 200;
const FINAL_RETRY_MAX_MS = 5_000;
const IN_VAIN: ErrorInfo = {
  code: 'CONFLICT',
  message: 'a task was drained for a stop whose savepoint did not complete',
};
/** A store or worker that does not answer: the failures for which a final checkpoint is only tried again. */
const PATIENT_CODES: ReadonlySet<ErrorInfo['code']> = new Set(['UNAVAILABLE', 'TIMEOUT', 'UNKNOWN_OUTCOME']);
/** How many ended checkpoints are remembered, to tell a late acknowledgement from a duplicate. */
const ENDED_MAX = 1_000;

export function initialCoordinator(config: CheckpointConfig): CoordinatorState {
  return {
    config,
    life: 'open',
    run: undefined,
    pending: new Map(),
    requests: [],
    reserving: undefined,
    lastId: 0,
    latestCompletedId: undefined,
    lastEndMs: Number.NEGATIVE_INFINITY,
    consecutiveFailures: 0,
    ended: [],
  };
}

export function stepCoordinator(state: CoordinatorState, event: CoordinatorEvent, nowMs: number): CoordinatorStep {
  if (state.life === 'halted') return { state, effects: [] };
  if (event.kind === 'fenced') {
    return {
      state: { ...state, life: 'halted', run: undefined, reserving: undefined, requests: [], pending: new Map() },
      effects: [{ kind: 'wake', atMs: undefined }],
    };
  }
  const effects: CoordinatorEffect[] = [];
  const after = apply(state, event, nowMs, effects);
  return { state: plan(after, nowMs, effects), effects };
}

/** What `ack` would count as; the step counts it by the same rule. */
export function classifyAck(state: CoordinatorState, ack: CheckpointAck): AckOutcome {
  const pending = state.pending.get(ack.checkpointId);
  if (pending === undefined) {
    const outcome = state.ended.findLast((entry) => entry.id === ack.checkpointId)?.outcome;
    return outcome === undefined ? 'unknown' : outcome === 'aborted' ? 'late' : 'duplicate';
  }
  if (pending.stage === 'committing') return 'duplicate';
  const run = state.run;
  const index = run?.indexOf.get(taskKey(ack.vertexId, ack.subtaskIndex));
  // K2: an attempt of an older deployment has nothing to say about this checkpoint.
  if (run === undefined || index === undefined || run.deployment !== pending.deployment) return 'unknown';
  const task = run.tasks[index];
  if (task?.attemptId !== ack.attemptId || task.deployment !== ack.deployment) return 'unknown';
  if (pending.expected[index] !== true) return 'unknown';
  return pending.acks[index] === undefined ? 'acked' : 'duplicate';
}

function apply(
  state: CoordinatorState,
  event: Exclude<CoordinatorEvent, { kind: 'fenced' }>,
  nowMs: number,
  out: CoordinatorEffect[],
): CoordinatorState {
  switch (event.kind) {
    case 'runStarted': {
      const covered = event.continues === true && state.latestCompletedId !== undefined;
      const run = { ...newRun(event), covered };
      return { ...stopRun(state, { reason: 'a new deployment began' }, nowMs, out), run };
    }
    case 'runStopped':
      return stopRun(state, event, nowMs, out);
    case 'taskChanged':
      if (state.run?.deployment !== event.deployment) return state;
      if (event.drained === true && isDrainedInVain(state, state.run)) out.push({ kind: 'failover', error: IN_VAIN });
      return endUnanswerable({ ...state, run: taskChanged(state.run, event, state.config, nowMs) }, event, nowMs, out);
    case 'restored':
      return { ...state, latestCompletedId: Math.max(event.checkpointId, state.latestCompletedId ?? 0) };
    case 'requested':
      return { ...state, requests: [...state.requests, event.request] };
    case 'tick':
      return state;
    case 'reserved':
      return reserved(state, event, nowMs, out);
    case 'reserveFailed': {
      if (state.reserving !== event.deployment) return state;
      const { run } = state;
      const waiting = run === undefined ? undefined : { ...run, notBeforeMs: nowMs + RESERVE_RETRY_MS };
      return { ...state, reserving: undefined, run: waiting };
    }
    case 'triggerFailed':
      return abort(state, event.id, event.error, { counts: true, nowMs }, out);
    case 'acknowledged':
      return acknowledged(state, event.ack, out);
    case 'declined': {
      const { decline } = event;
      const run = state.run;
      const index = run?.indexOf.get(taskKey(decline.vertexId, decline.subtaskIndex));
      if (index === undefined || run?.tasks[index]?.attemptId !== decline.attemptId) return state;
      // A task that is not ready or is going away says nothing about whether checkpoints work.
      const counts = decline.reason.code !== 'CLOSED' && decline.reason.code !== 'CONFLICT';
      return abort(state, decline.checkpointId, decline.reason, { counts, nowMs }, out);
    }
    case 'committed':
      return committed(state, event.id, nowMs, out);
    case 'commitFailed': {
      const pending = state.pending.get(event.id);
      assert(pending?.stage === 'committing', 'K5: only a checkpoint being committed can fail to commit');
      const { error, keepObjects } = event;
      // That a newer one came first says nothing about whether checkpoints work.
      return endAborted(state, pending, error, { counts: error.code !== 'CONFLICT', nowMs, keepObjects }, out);
    }
    default:
      return unreachable(event);
  }
}

function newRun({
  deployment,
  tasks,
  suspended = false,
}: {
  readonly deployment: DeploymentId;
  readonly tasks: readonly RunTask[];
  readonly suspended?: boolean;
}): Run {
  return {
    suspended,
    deployment,
    tasks,
    indexOf: new Map<TaskKey, number>(tasks.map((task, index) => [taskKey(task.vertexId, task.subtaskIndex), index])),
    stages: tasks.map(() => 'starting'),
    atEnd: tasks.map(() => false),
    running: 0,
    finished: 0,
    runningAtEnd: 0,
    periodicAtMs: undefined,
    notBeforeMs: Number.NEGATIVE_INFINITY,
    finalFailures: 0,
    covered: false,
    finalCompleted: false,
  };
}

function taskChanged(
  run: Run,
  change: { readonly index: number; readonly stage: RunTaskStage; readonly atEnd: boolean },
  config: CheckpointConfig,
  nowMs: number,
): Run {
  const stages = run.stages.with(change.index, change.stage);
  const atEnd = run.atEnd.with(change.index, change.atEnd);
  let running = 0;
  let finished = 0;
  let runningAtEnd = 0;
  stages.forEach((stage, index) => {
    if (stage === 'finished') finished++;
    if (stage !== 'running') return;
    running++;
    if (atEnd[index]) runningAtEnd++;
  });
  const everybody = running + finished === run.tasks.length;
  const periodicAtMs =
    run.periodicAtMs ?? (everybody && config.intervalMs !== undefined ? nowMs + config.intervalMs : undefined);
  return { ...run, stages, atEnd, running, finished, runningAtEnd, periodicAtMs };
}

/** K9. The order to drain may outlive the leader that gave it, and be carried out when its successor has taken over. */
function isDrainedInVain({ pending }: CoordinatorState, run: Run): boolean {
  return !run.suspended && !run.finalCompleted && ![...pending.values()].some(({ stop }) => stop === 'DRAIN');
}

/**
 * A task that finished without having seen a checkpoint's barrier will never acknowledge it: the notice that let
 * it finish was faster. Waiting for the timeout would hold up whoever is still running.
 */
function endUnanswerable(
  state: CoordinatorState,
  change: { readonly index: number; readonly stage: RunTaskStage },
  nowMs: number,
  out: CoordinatorEffect[],
): CoordinatorState {
  if (change.stage !== 'finished') return state;
  let next = state;
  for (const { id, expected, acks } of state.pending.values()) {
    if (expected[change.index] !== true || acks[change.index] !== undefined) continue;
    const reason = { code: 'CLOSED', message: 'a task finished before it could take part' } as const;
    next = abort(next, id, reason, { counts: false, nowMs }, out);
  }
  return next;
}

function stopRun(
  state: CoordinatorState,
  { reason, partly = false }: { readonly reason: string; readonly partly?: boolean },
  nowMs: number,
  out: CoordinatorEffect[],
): CoordinatorState {
  if (state.run === undefined) return state;
  const stopped = { run: undefined, reserving: undefined, consecutiveFailures: 0 };
  // Telling tasks that are being cancelled of aborted checkpoints would only be noise.
  let next: CoordinatorState = partly ? state : { ...state, ...stopped };
  for (const pending of state.pending.values()) {
    if (pending.stage === 'committing') continue; // K5
    next = abort(next, pending.id, { code: 'CLOSED', message: reason }, { counts: false, nowMs }, out);
  }
  return { ...next, ...stopped };
}

function reserved(
  state: CoordinatorState,
  event: { readonly deployment: DeploymentId; readonly id: number },
  nowMs: number,
  out: CoordinatorEffect[],
): CoordinatorState {
  // For a deployment that has ended: used by nobody, and neither its place nor its number says when it was asked for.
  if (state.reserving !== event.deployment) return state;
  assert(event.id > state.lastId, 'K1: checkpoint ids strictly rise');
  const used = { ...state, lastId: event.id };
  const free = { ...used, reserving: undefined };
  const { run, config } = free;
  // Things may have changed while the id was being reserved; an id that is not used is no loss.
  if (run === undefined || dueMs(free, nowMs) === undefined) return free;
  const [request, ...requests] = free.requests;
  const kind = request?.kind ?? 'CHECKPOINT';
  const stop = request?.stop ?? (run.suspended ? 'SUSPEND' : undefined);
  const expected = run.stages.map((stage) => stage === 'running');
  const checkpoint: PendingCheckpoint = {
    id: event.id,
    kind,
    deployment: run.deployment,
    stage: 'collecting',
    request,
    stop,
    final: stop !== undefined || (kind === 'CHECKPOINT' && run.runningAtEnd === run.running),
    triggeredMs: nowMs,
    deadlineMs: nowMs + config.timeoutMs,
    expected,
    acks: expected.map(() => undefined),
    missing: run.running,
  };
  out.push({ kind: 'trigger', checkpoint, targets: rootsOf(run) });
  const begun = { ...free, requests, pending: new Map(free.pending).set(checkpoint.id, checkpoint) };
  if (kind === 'SAVEPOINT') return begun; // K8
  return {
    ...begun,
    run: { ...run, periodicAtMs: config.intervalMs === undefined ? undefined : nowMs + config.intervalMs },
  };
}

/** Where barriers begin: running sources, and running tasks whose every producer has finished. */
function rootsOf(run: Run): readonly number[] {
  const isRunning = (_: unknown, index: number) => run.stages[index] === 'running';
  const alive = new Set(run.tasks.filter(isRunning).map((task) => task.vertexId));
  const isAlive = (upstream: RunTask['upstream'][number]) =>
    typeof upstream === 'string'
      ? alive.has(upstream)
      : upstream.subtasks.some((i) => run.stages[run.indexOf.get(taskKey(upstream.vertexId, i)) ?? -1] === 'running');
  return run.tasks.flatMap((task, index) => (isRunning(task, index) && !task.upstream.some(isAlive) ? [index] : []));
}

function acknowledged(state: CoordinatorState, ack: CheckpointAck, out: CoordinatorEffect[]): CoordinatorState {
  const outcome = classifyAck(state, ack);
  if (outcome === 'late') {
    out.push({ kind: 'discard', acks: [ack] }); // K6
    return state;
  }
  if (outcome !== 'acked') return state;
  const pending = state.pending.get(ack.checkpointId);
  const index = state.run?.indexOf.get(taskKey(ack.vertexId, ack.subtaskIndex));
  assert(pending !== undefined && index !== undefined && state.run !== undefined, 'K2: acked means pending');
  const missing = pending.missing - 1;
  const next: PendingCheckpoint = {
    ...pending,
    acks: pending.acks.with(index, ack),
    missing,
    stage: missing === 0 ? 'committing' : 'collecting',
  };
  if (missing === 0) {
    assert(
      next.expected.every((expected, i) => expected === (next.acks[i] !== undefined)),
      'K3: committed with every acknowledgement',
    );
    out.push({ kind: 'commit', checkpoint: next, run: state.run });
  }
  return { ...state, pending: new Map(state.pending).set(next.id, next) };
}

function committed(state: CoordinatorState, id: number, nowMs: number, out: CoordinatorEffect[]): CoordinatorState {
  const checkpoint = state.pending.get(id);
  assert(checkpoint?.stage === 'committing', 'K4: only a checkpoint being committed completes');
  const pending = new Map(state.pending);
  pending.delete(id);
  const current = state.run?.deployment === checkpoint.deployment ? state.run : undefined;
  const after = { ...state, pending, ended: remember(state, id, 'completed') };
  const isSavepoint = checkpoint.kind === 'SAVEPOINT';
  const notify = isSavepoint && checkpoint.stop === undefined ? undefined : current?.deployment; // K8
  out.push({ kind: 'completed', checkpoint, notify });
  if (!isSavepoint) out.push({ kind: 'subsume' });
  let next: CoordinatorState = isSavepoint
    ? after
    : {
        ...after,
        latestCompletedId: Math.max(id, state.latestCompletedId ?? 0),
        lastEndMs: nowMs,
        consecutiveFailures: current === undefined ? state.consecutiveFailures : 0,
      };
  if (current !== undefined) {
    const finalCompleted = current.finalCompleted || checkpoint.final;
    const covered = current.covered || !isSavepoint;
    next = { ...next, run: { ...current, covered, finalCompleted, finalFailures: 0 } };
  }
  if (isSavepoint && checkpoint.stop === undefined) return next;
  // An older one that still collects would only be subsumed at once.
  for (const older of pending.values()) {
    if (older.id > id || older.stage === 'committing' || older.kind === 'SAVEPOINT') continue;
    next = abort(next, older.id, subsumedBy(id), { counts: false, nowMs }, out);
  }
  return next;
}

/** Why a checkpoint ends without a pointer when a newer one has its. */
export function subsumedBy(checkpointId: number): ErrorInfo {
  return { code: 'CONFLICT', message: `subsumed by checkpoint ${checkpointId}, which completed first` };
}

interface AbortOptions {
  /** Whether it counts towards the failures that the job bears. */
  readonly counts: boolean;
  readonly nowMs: number;
  /** Its objects may be referenced after all: they are left to the sweeper. */
  readonly keepObjects?: boolean;
}

function abort(
  state: CoordinatorState,
  id: number,
  reason: ErrorInfo,
  options: AbortOptions,
  out: CoordinatorEffect[],
): CoordinatorState {
  const checkpoint = state.pending.get(id);
  if (checkpoint === undefined || checkpoint.stage === 'committing') return state; // K5
  return endAborted(state, checkpoint, reason, options, out);
}

function endAborted(
  state: CoordinatorState,
  checkpoint: PendingCheckpoint,
  reason: ErrorInfo,
  options: AbortOptions,
  out: CoordinatorEffect[],
): CoordinatorState {
  const pending = new Map(state.pending);
  pending.delete(checkpoint.id);
  const current = state.run?.deployment === checkpoint.deployment ? state.run : undefined;
  const { latestCompletedId } = state;
  // When part of the job restarts while it is being written, the other part still waits behind it.
  const waiting =
    checkpoint.stop !== undefined && checkpoint.stage === 'committing' ? checkpoint.deployment : undefined;
  out.push({ kind: 'aborted', checkpoint, reason, notify: current?.deployment ?? waiting, latestCompletedId });
  const acks = checkpoint.acks.filter((ack) => ack !== undefined);
  if (acks.length > 0 && options.keepObjects !== true) out.push({ kind: 'discard', acks });
  if (checkpoint.request !== undefined) out.push({ kind: 'requestFailed', request: checkpoint.request, error: reason });

  const outcome = options.keepObjects === true ? 'doubtful' : 'aborted';
  const next = { ...state, pending, lastEndMs: options.nowMs, ended: remember(state, checkpoint.id, outcome) };
  if (checkpoint.kind === 'SAVEPOINT') {
    // K8. One that was being written may fail when part of the job restarts already: the other part is drained.
    if (checkpoint.stop !== 'DRAIN' || (current === undefined && checkpoint.stage !== 'committing')) return next;
    // Event time has come to its end: only a restart brings the job back to where it was.
    const message = `the job was drained, but its savepoint failed: ${reason.message}`;
    out.push({ kind: 'failover', error: { ...reason, message } });
    return next;
  }
  if (current === undefined) return next;
  const run = checkpoint.final ? finalFailed(current, options.nowMs) : current;
  // At the end of the job patience costs nothing, and a restart would only bring it back here.
  const bearable = checkpoint.final && PATIENT_CODES.has(reason.code);
  if (!options.counts || bearable) return { ...next, run };
  const consecutiveFailures = state.consecutiveFailures + 1;
  if (consecutiveFailures <= state.config.tolerableFailedCheckpoints) return { ...next, run, consecutiveFailures };
  const message = `${consecutiveFailures} checkpoints in a row have failed, ${state.config.tolerableFailedCheckpoints} are tolerable: ${reason.message}`;
  out.push({ kind: 'failover', error: { ...reason, message } });
  return { ...next, run, consecutiveFailures: 0 };
}

function finalFailed(run: Run, nowMs: number): Run {
  const waitMs = Math.min(FINAL_RETRY_MAX_MS, FINAL_RETRY_MS * 2 ** run.finalFailures);
  return { ...run, finalFailures: run.finalFailures + 1, notBeforeMs: nowMs + waitMs };
}

function remember(
  state: CoordinatorState,
  id: number,
  outcome: 'completed' | 'aborted' | 'doubtful',
): CoordinatorState['ended'] {
  return [...state.ended.slice(1 - ENDED_MAX), { id, outcome }];
}

/** When the next checkpoint may begin (possibly in the past); undefined when none may. */
function dueMs(state: CoordinatorState, nowMs: number): number | undefined {
  const { run, config } = state;
  if (run === undefined || run.finalCompleted || state.reserving !== undefined) return undefined;
  if (run.running === 0 || run.running + run.finished < run.tasks.length) return undefined;
  // The state of a task that finished without a checkpoint is unknown: one that lacks it would lose data.
  if (run.finished > 0 && !run.covered) return undefined;
  if (state.pending.size >= config.maxConcurrent) return undefined;
  // The job is about to end with what is in progress: nothing may be committed behind it.
  for (const { request } of state.pending.values()) {
    if (request?.stop !== undefined || request?.cancelJob === true) return undefined;
  }
  // At once, but not again and again while the coordination store refuses an id.
  if (state.requests.length > 0) return Math.max(run.notBeforeMs, nowMs);
  if (run.runningAtEnd === run.running || run.suspended) {
    for (const pending of state.pending.values()) if (pending.final) return undefined;
    return Math.max(run.notBeforeMs, nowMs);
  }
  if (run.periodicAtMs === undefined) return undefined;
  return Math.max(run.periodicAtMs, state.lastEndMs + config.minPauseMs, run.notBeforeMs);
}

/** What time asks for: ends checkpoints that took too long, begins one that is due, says when to look again. */
function plan(state: CoordinatorState, nowMs: number, out: CoordinatorEffect[]): CoordinatorState {
  let next = state;
  for (const pending of state.pending.values()) {
    if (pending.stage === 'committing' || pending.deadlineMs > nowMs) continue; // K5
    const message = `checkpoint ${pending.id} expired: ${pending.missing} of ${pending.expected.filter(Boolean).length} subtasks did not acknowledge within ${state.config.timeoutMs} ms`;
    next = abort(next, pending.id, { code: 'TIMEOUT', message }, { counts: true, nowMs }, out);
  }
  next = refuseImpossible(next, out);
  const due = dueMs(next, nowMs);
  const { run } = next;
  if (run !== undefined && due !== undefined && due <= nowMs) {
    next = { ...next, reserving: run.deployment };
    out.push({ kind: 'reserve', deployment: run.deployment });
  }
  let wakeMs = due !== undefined && due > nowMs ? due : Number.POSITIVE_INFINITY;
  for (const pending of next.pending.values()) {
    if (pending.stage === 'collecting') wakeMs = Math.min(wakeMs, pending.deadlineMs);
  }
  out.push({ kind: 'wake', atMs: Number.isFinite(wakeMs) ? wakeMs : undefined });
  return next;
}

/** Requests wait for a job that is not running now; not for what this run cannot give any more. */
function refuseImpossible(state: CoordinatorState, out: CoordinatorEffect[]): CoordinatorState {
  const { run } = state;
  if (run === undefined || state.requests.length === 0) return state;
  const message =
    run.finalCompleted || run.suspended
      ? 'the job is about to end'
      : run.finished > 0 && !run.covered
        ? 'some tasks finished before any checkpoint, so their state is not known'
        : undefined;
  if (message === undefined) return state;
  for (const request of state.requests) {
    out.push({ kind: 'requestFailed', request, error: { code: 'CONFLICT', message } });
  }
  return { ...state, requests: [] };
}
