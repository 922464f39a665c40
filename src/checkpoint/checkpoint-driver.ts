import type { CheckpointOptions, CompletedCheckpoint } from '../contracts/checkpoint.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { type CheckpointOperation, failedWith, type OperationStore, type TriggerId } from '../contracts/operations.ts';
import type { TaskManagerGateway } from '../contracts/task-manager-gateway.ts';
import type { CheckpointAck, CheckpointDecline } from '../contracts/task.ts';
import type { CheckpointsView } from '../contracts/views.ts';
import { unreachable } from '../kernel/assert.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { asError, type ErrorInfo, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId, FencingToken, TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, retry } from '../kernel/retry.ts';
import { classifyAck, initialCoordinator, stepCoordinator, subsumedBy } from './checkpoint-coordinator.ts';
import { CheckpointHistory } from './checkpoint-history.ts';
import { buildMetadata } from './checkpoint-metadata.ts';
import { CheckpointNotifier, type NoticeGroup } from './checkpoint-notifier.ts';
import { commitCheckpoint, type CommitOutcome } from './commit-checkpoint.ts';
import type {
  AckOutcome,
  CheckpointRequest,
  CoordinatorEffect,
  CoordinatorEvent,
  CoordinatorState,
  PendingCheckpoint,
  Run,
  RunTask,
  RunTaskStage,
} from './coordinator-state.ts';
import { EarlierCheckpoints } from './earlier-checkpoints.ts';
import type { CheckpointIdCounter, CompletedCheckpointStore } from './ports.ts';
import { RestorableObjects } from './restorable-objects.ts';
import { copyIntoSavepoint } from './savepoint-copy.ts';

const RECORD_BACKOFF: Backoff = { initialMs: 100, maxMs: 5_000, multiplier: 2 };

export interface CheckpointDriverDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly graph: JobGraph;
  readonly token: FencingToken;
  readonly store: CompletedCheckpointStore;
  readonly counter: CheckpointIdCounter;
  readonly operations: OperationStore;
  /** Runs `work` in the owner's turn, in order; drops it once the owner has closed. */
  readonly enqueue: (work: () => void) => void;
  readonly onFailover: (error: ErrorInfo) => void;
  /** A savepoint after which the job is to be cancelled is complete, and the wish durable. */
  readonly onCancel: () => void;
  readonly onFenced: (reason: string) => void;
}

/** Tasks that are to be checkpointed together. */
export interface CheckpointedRun {
  /** The newest of the tasks' deployments. */
  readonly deployment: DeploymentId;
  readonly tasks: readonly (RunTask & { readonly taskManagerId: TaskManagerId })[];
  readonly gateways: ReadonlyMap<TaskManagerId, TaskManagerGateway>;
  /** The job has stopped before: its tasks only finish what that left. */
  readonly suspended?: boolean;
  /** Tasks go on that are older than this run: of an earlier term, or of regions that did not restart. */
  readonly continues?: ContinuedTasks;
}

export interface ContinuedTasks {
  /** The newest completed checkpoint, if any: they are told of it again. */
  readonly checkpoint: CompletedCheckpoint | undefined;
  /** They are of an earlier term: its leader may have had checkpoints in flight that nobody knows of. */
  readonly adopted: boolean;
}

interface PresentRun extends CheckpointedRun {
  readonly notifier: CheckpointNotifier;
  /**
   * The newest whose pointer is written, known before anybody is told. Not a savepoint: finished tasks' state is
   * taken from it, and a savepoint is not to be referred to; save the one with which the job has stopped, which is
   * all that there is of tasks that finished by it, and stays at least until the job has ended.
   */
  last: CompletedCheckpoint['metadata'] | undefined;
  /** The savepoint with which the job stops, once its pointer is written. */
  stopId: number | undefined;
}

/**
 * Carries out what the coordinator decides: reserves ids, triggers sources, writes metadata and
 * pointer, tells workers, tidies up.
 *
 * It has no turn of its own: its methods are called in the owner's serial turn, and what its I/O
 * brings comes back through `enqueue`. A suspended owner therefore suspends it too.
 */
export class CheckpointDriver {
  private state: CoordinatorState;
  private readonly history = new CheckpointHistory();
  private readonly background: BackgroundTasks;
  /** Commits one after the other, so that pointers appear in the order of their ids. */
  private readonly commits: BackgroundTasks;
  private commitTail: Promise<void> = Promise.resolve();
  private readonly closing = new AbortController();
  private timer: Timer | undefined;
  private run: PresentRun | undefined;
  /** The newest checkpoint of this term with which the job was to stop and did not. */
  private failedStopId: number | undefined;
  private readonly earlier: EarlierCheckpoints;
  private readonly triggerWallMs = new Map<number, number>();
  /** The job started from what is not its own: its first checkpoint must not refer to that. */
  private mustBeFull = false;
  /** Every operation of this term: one that is asked for twice is done once. */
  private readonly requested = new Set<TriggerId>();
  private readonly restorable = new RestorableObjects();

  constructor(private readonly deps: CheckpointDriverDeps) {
    this.state = initialCoordinator(deps.graph.config.checkpointing);
    this.background = new BackgroundTasks(deps.log);
    this.commits = new BackgroundTasks(deps.log);
    this.earlier = new EarlierCheckpoints({
      ...deps,
      onFenced: (reason) => this.fencedLater(reason),
      abortUpTo: (id) => this.run?.notifier.abortedUpTo(id, this.state.latestCompletedId),
      signal: this.closing.signal,
    });
  }

  view(): CheckpointsView {
    return this.history.view();
  }

  /** The job is about to be deployed from this checkpoint. */
  restored(checkpoint: CompletedCheckpoint, options: { readonly own: boolean }): void {
    const { checkpointId } = checkpoint.metadata;
    this.history.restored(checkpoint, this.deps.clock.wallMs());
    this.restorable.add(checkpoint, options);
    this.mustBeFull = !options.own;
    if (options.own) this.step({ kind: 'restored', checkpointId });
  }

  /** Begins it as soon as the job runs. Its result goes to the record of the operation. */
  request({ triggerId, request }: CheckpointOperation): void {
    if (this.requested.has(triggerId)) return;
    this.requested.add(triggerId);
    const of: CheckpointRequest =
      request.kind === 'CHECKPOINT'
        ? { triggerId, kind: 'CHECKPOINT', full: request.full }
        : { ...request, triggerId, full: true };
    this.step({ kind: 'requested', request: of });
  }

  /** This master takes over from one that completed this checkpoint: nothing is restored from it. */
  adopted(checkpoint: CompletedCheckpoint): void {
    const { checkpointId } = checkpoint.metadata;
    this.history.found(checkpoint);
    this.restorable.add(checkpoint);
    this.step({ kind: 'restored', checkpointId });
  }

  /** All tasks of the job are deployed or adopted. */
  startRun(run: CheckpointedRun): void {
    this.connect(run);
    const { deployment, tasks, suspended = false, continues } = run;
    this.step({ kind: 'runStarted', deployment, tasks, suspended, continues: continues !== undefined });
  }

  /** Only some tasks run, and others are about to be deployed: these are told of what they wait for. */
  continueTasks(run: CheckpointedRun & { readonly continues: ContinuedTasks }): void {
    this.connect(run);
  }

  private connect(run: CheckpointedRun): void {
    const { clock, random, log, graph } = this.deps;
    this.run?.notifier.stop();
    const notifier = new CheckpointNotifier(
      { clock, random, log, background: this.background, onFenced: (reason) => this.fencedLater(reason) },
      { jobId: graph.jobId, groups: groupsOf(run) },
    );
    const { metadata } = run.continues?.checkpoint ?? {};
    const last = metadata?.kind === 'CHECKPOINT' || run.suspended === true ? metadata : undefined;
    this.run = { ...run, notifier, last, stopId: undefined };
    if (run.continues === undefined) return;
    // Behind it the tasks that go on stand still; whether they have heard that it failed is not known.
    if (this.failedStopId !== undefined)
      notifier.aborted(this.failedStopId, this.state.latestCompletedId, { surely: true });
    const { checkpoint, adopted } = run.continues;
    if (checkpoint !== undefined) this.tellAgain(notifier, checkpoint.metadata.checkpointId, adopted);
    if (adopted || this.earlier.exist) this.earlier.abort();
  }

  /** Of tasks that were adopted nobody waits for it, and all the cluster waits for the jobs that come after this one. */
  private tellAgain(notifier: CheckpointNotifier, checkpointId: number, adopted: boolean): void {
    if (adopted)
      this.background.run('tell adopted tasks of their checkpoint', async () => {
        await this.earlier.afterTakeover();
        notifier.completed(checkpointId);
      });
    else notifier.completed(checkpointId);
  }

  taskChanged(index: number, stage: RunTaskStage, data: { readonly atEnd: boolean; readonly drained?: boolean }): void {
    const run = this.state.run;
    if (run === undefined) return;
    if (run.stages[index] === stage && run.atEnd[index] === data.atEnd) return;
    this.step({ kind: 'taskChanged', deployment: run.deployment, index, stage, ...data });
  }

  /** Aborts what is in flight. What is being committed goes on: wait for {@link settled}. `partly`: some tasks go on. */
  stopRun(reason: string, { partly = false } = {}): void {
    if (partly) {
      // Who goes on still waits for notices.
      this.step({ kind: 'runStopped', reason, partly });
      return;
    }
    this.run?.notifier.stop();
    this.run = undefined;
    this.step({ kind: 'runStopped', reason });
  }

  acknowledge(ack: CheckpointAck): AckOutcome {
    const outcome = classifyAck(this.state, ack);
    const wallMs = this.deps.clock.wallMs();
    if (outcome === 'acked') this.history.acknowledged(ack, wallMs);
    else this.deps.log.debug({ ...facts(ack), outcome }, 'acknowledgement does not count');
    this.step({ kind: 'acknowledged', ack });
    return outcome;
  }

  decline(decline: CheckpointDecline): void {
    this.deps.log.warn({ ...facts(decline), reason: decline.reason }, 'subtask declined a checkpoint');
    this.step({ kind: 'declined', decline });
  }

  /** Resolves once the fate of every checkpoint that was being committed is known (or this has closed). */
  settled(): Promise<void> {
    return this.commits.drain();
  }

  suspend(): void {
    this.run?.notifier.suspend();
  }

  resume(): void {
    this.run?.notifier.resume();
  }

  /** Stops deciding and repeating. Calls already sent are not waited for. */
  async close(): Promise<void> {
    this.closing.abort();
    this.timer?.cancel();
    this.run?.notifier.stop();
    await this.commits.drain();
  }

  private step(event: CoordinatorEvent): void {
    if (this.closing.signal.aborted) return;
    const { state, effects } = stepCoordinator(this.state, event, this.deps.clock.nowMs());
    this.state = state;
    for (const effect of effects) this.perform(effect);
  }

  private later(event: CoordinatorEvent): void {
    this.deps.enqueue(() => this.step(event));
  }

  private perform(effect: CoordinatorEffect): void {
    switch (effect.kind) {
      case 'reserve':
        this.background.run('reserve checkpoint id', () => this.reserve(effect.deployment));
        return;
      case 'trigger':
        this.trigger(effect.checkpoint, effect.targets);
        return;
      case 'commit':
        this.commit(effect.checkpoint, effect.run);
        return;
      case 'completed':
        this.triggerWallMs.delete(effect.checkpoint.id);
        this.deps.log.info(
          { checkpointId: effect.checkpoint.id, kind: effect.checkpoint.kind, final: effect.checkpoint.final },
          'checkpoint completed',
        );
        if (effect.notify !== undefined) this.run?.notifier.completed(effect.checkpoint.id);
        return;
      case 'aborted':
        this.aborted(effect);
        return;
      case 'discard':
        this.discard(effect.acks);
        return;
      case 'subsume':
        this.background.run('subsume checkpoints', () => this.subsume());
        return;
      case 'requestFailed':
        this.requestFailed(effect.request, effect.error);
        return;
      case 'failover':
        this.deps.onFailover(effect.error);
        return;
      case 'wake':
        this.wake(effect.atMs);
        return;
      default:
        unreachable(effect);
    }
  }

  private wake(atMs: number | undefined): void {
    this.timer?.cancel();
    this.timer = undefined;
    if (atMs === undefined) return;
    const delayMs = Math.max(0, atMs - this.deps.clock.nowMs());
    this.timer = this.deps.clock.schedule(delayMs, () => this.later({ kind: 'tick' }));
  }

  private async reserve(deployment: DeploymentId): Promise<void> {
    try {
      await this.earlier.reserved();
      const id = await this.deps.counter.next(this.deps.token);
      this.later({ kind: 'reserved', deployment, id });
    } catch (error) {
      if (isFenced(error)) return this.fencedLater(asError(error).message);
      // Nothing was begun: an outage of the coordination store postpones checkpoints, it fails none.
      this.deps.log.warn({ err: asError(error) }, 'checkpoint id could not be reserved');
      this.later({ kind: 'reserveFailed', deployment });
    }
  }

  private trigger(checkpoint: PendingCheckpoint, targets: readonly number[]): void {
    const { clock, graph, log } = this.deps;
    const run = this.run;
    if (run === undefined) return;
    const timestampMs = clock.wallMs();
    this.triggerWallMs.set(checkpoint.id, timestampMs);
    this.history.triggered(checkpoint, this.state.run, timestampMs);
    log.debug(
      { checkpointId: checkpoint.id, final: checkpoint.final, sources: targets.length },
      'checkpoint triggered',
    );
    const options = this.optionsOf(checkpoint);
    for (const { gateway, deployment, attemptIds } of groupsOf(run, targets)) {
      this.background.run('trigger checkpoint', async () => {
        try {
          await gateway.triggerCheckpoint({
            jobId: graph.jobId,
            deployment,
            checkpointId: checkpoint.id,
            timestampMs,
            options,
            attemptIds: [...attemptIds],
          });
        } catch (error) {
          if (isFenced(error)) return this.fencedLater(asError(error).message);
          this.later({ kind: 'triggerFailed', id: checkpoint.id, error: toErrorInfo(error) });
        }
      });
    }
  }

  private optionsOf({ kind, request, stop }: PendingCheckpoint): CheckpointOptions {
    const { unaligned, mode, alignedTimeoutMs } = this.deps.graph.config.checkpointing;
    // As in Flink: a savepoint holds no records in flight, so that it fits another graph.
    const mayOvertake = unaligned && mode === 'EXACTLY_ONCE' && kind === 'CHECKPOINT' && stop === undefined;
    const full = kind === 'CHECKPOINT' && (request?.full === true || this.mustBeFull);
    return {
      kind,
      ...(full ? { full } : {}),
      ...(request?.location === undefined ? {} : { location: request.location }),
      ...(stop === undefined ? {} : { stop }),
      aligned: !mayOvertake,
      alignedTimeoutMs,
    };
  }

  private commit(checkpoint: PendingCheckpoint, run: Run): void {
    const before = this.commitTail;
    let done = () => {};
    this.commitTail = new Promise<void>((resolve) => {
      done = resolve;
    });
    const present = this.run;
    this.commits.run('complete checkpoint', async () => {
      try {
        await before;
        // Only now is known which checkpoint came last: one that it subsumed may be losing its objects already.
        const outcome = behindStop(checkpoint, present) ?? (await this.write(checkpoint, run, present?.last));
        if (present !== undefined && outcome.kind === 'completed') {
          if (checkpoint.kind === 'CHECKPOINT') present.last = outcome.completed.metadata;
          else if (checkpoint.stop !== undefined) present.stopId = checkpoint.id;
        }
        this.deps.enqueue(() => this.written(checkpoint, outcome));
      } finally {
        done();
      }
    });
  }

  private async write(
    checkpoint: PendingCheckpoint,
    run: Run,
    previous: CompletedCheckpoint['metadata'] | undefined,
  ): Promise<CommitOutcome> {
    const { clock, random, log, graph, store, token } = this.deps;
    // A newer one had all its answers first. Pointers appear in the order of their ids, so this one has none.
    if (checkpoint.kind === 'CHECKPOINT' && previous !== undefined && previous.checkpointId > checkpoint.id)
      return { kind: 'failed', error: subsumedBy(previous.checkpointId), keepObjects: false };
    const completedWallMs = clock.wallMs();
    const triggerWallMs = this.triggerWallMs.get(checkpoint.id) ?? completedWallMs;
    const location = checkpoint.request?.location;
    let metadata: CompletedCheckpoint['metadata'];
    try {
      metadata = buildMetadata({ graph, run, checkpoint, previous, triggerWallMs, completedWallMs });
      if (location !== undefined) {
        metadata = await copyIntoSavepoint(metadata, location, (from, to) => store.copy(from, to, this.closing.signal));
      }
    } catch (error) {
      return { kind: 'failed', error: toErrorInfo(error), keepObjects: false };
    }
    return commitCheckpoint({ clock, random, log, store }, metadata, token, {
      completion: {
        location,
        stop: checkpoint.kind === 'SAVEPOINT' ? checkpoint.stop : undefined,
        triggerId: checkpoint.request?.triggerId,
        cancelJob: checkpoint.request?.cancelJob,
      },
      signal: this.closing.signal,
      // While the store is away: as long as the checkpoint's own time and its deployment last.
      worthwhile: () => clock.nowMs() < checkpoint.deadlineMs && this.state.run?.deployment === checkpoint.deployment,
    });
  }

  private written(checkpoint: PendingCheckpoint, outcome: CommitOutcome): void {
    const { id } = checkpoint;
    switch (outcome.kind) {
      case 'completed':
        if (checkpoint.kind === 'CHECKPOINT') this.mustBeFull = false;
        this.history.completed(outcome.completed, this.deps.clock.wallMs());
        this.restorable.add(outcome.completed);
        this.step({ kind: 'committed', id });
        if (checkpoint.request?.cancelJob === true) this.deps.onCancel();
        return;
      case 'failed':
        this.step({ kind: 'commitFailed', id, error: outcome.error, keepObjects: outcome.keepObjects });
        return;
      case 'fenced':
        this.fenced(outcome.reason);
        return;
      case 'closed':
        return;
      default:
        unreachable(outcome);
    }
  }

  private aborted(effect: CoordinatorEffect & { readonly kind: 'aborted' }): void {
    const { checkpoint, reason, latestCompletedId } = effect;
    this.triggerWallMs.delete(checkpoint.id);
    this.history.failed(checkpoint.id, reason.message, this.deps.clock.wallMs());
    this.deps.log.warn(
      { checkpointId: checkpoint.id, reason: reason.message, code: reason.code },
      'checkpoint aborted',
    );
    // Tasks that have stopped for it go on only when they hear of it.
    const surely = checkpoint.stop !== undefined;
    if (surely) this.failedStopId = checkpoint.id;
    if (effect.notify !== undefined) this.run?.notifier.aborted(checkpoint.id, latestCompletedId, { surely });
  }

  /** Repeated until it is on record: somebody waits for it. */
  private requestFailed({ triggerId }: CheckpointRequest, error: ErrorInfo): void {
    const { clock, random, log, operations, graph, token } = this.deps;
    log.warn({ triggerId, error }, 'requested checkpoint failed');
    this.background.run('record a failed operation', async () => {
      try {
        await retry(
          { clock, random },
          {
            backoff: RECORD_BACKOFF,
            retryable: (thrown) => !isFenced(thrown),
            onRetry: (err, attempt) => log.warn({ err: asError(err), triggerId, attempt }, 'failure not yet recorded'),
            signal: this.closing.signal,
          },
          () => operations.finish(graph.jobId, triggerId, failedWith(error), token),
        );
      } catch (thrown) {
        if (isFenced(thrown)) this.fencedLater(asError(thrown).message);
        // Closed: the next leader finds it without a result.
        else if (!this.closing.signal.aborted) throw thrown;
      }
    });
  }

  private discard(acks: readonly CheckpointAck[]): void {
    const keys = this.restorable.discardable(acks);
    if (keys.length > 0) this.background.run('discard checkpoint objects', () => this.deps.store.discard(keys));
  }

  private async subsume(): Promise<void> {
    const { store, graph, token, log } = this.deps;
    try {
      await store.subsume(graph.config.checkpointing.numRetained, token);
      const retained = new Set((await store.listIds()).map((entry) => entry.checkpointId));
      this.deps.enqueue(() => this.subsumed(retained));
    } catch (error) {
      if (isFenced(error)) return this.fencedLater(asError(error).message);
      // The next completed checkpoint, or the sweeper, catches up.
      log.warn({ err: asError(error) }, 'old checkpoints could not be subsumed');
    }
  }

  private subsumed(retained: ReadonlySet<number>): void {
    const newest = this.state.latestCompletedId ?? 0;
    this.restorable.keepOnly(retained, newest);
    this.history.retained(new Set([...retained, newest]));
  }

  private fencedLater(reason: string): void {
    this.deps.enqueue(() => this.fenced(reason));
  }

  private fenced(reason: string): void {
    this.step({ kind: 'fenced' });
    this.run?.notifier.stop();
    this.deps.onFenced(reason);
  }
}

/** The job stops with a newer one, by which its sinks commit: no pointer comes behind that. */
function behindStop({ kind, id }: PendingCheckpoint, run: PresentRun | undefined): CommitOutcome | undefined {
  if (kind !== 'CHECKPOINT' || run?.stopId === undefined || run.stopId < id) return undefined;
  return { kind: 'failed', error: subsumedBy(run.stopId), keepObjects: false };
}

/** The tasks (or those of `targets`) that hear of a checkpoint together; tasks on workers without a slot of ours hear nothing. */
function groupsOf(
  run: CheckpointedRun,
  targets: readonly number[] = [...run.tasks.keys()],
): readonly (NoticeGroup & { readonly attemptIds: readonly AttemptId[] })[] {
  const groups = new Map<string, NoticeGroup & { readonly attemptIds: AttemptId[] }>();
  for (const index of targets) {
    const task = run.tasks[index];
    const gateway = task === undefined ? undefined : run.gateways.get(task.taskManagerId);
    if (task === undefined || gateway === undefined) continue;
    const { taskManagerId, deployment, attemptId } = task;
    const group = groups.get(`${taskManagerId} ${deployment}`);
    if (group === undefined)
      groups.set(`${taskManagerId} ${deployment}`, { taskManagerId, deployment, gateway, attemptIds: [attemptId] });
    else group.attemptIds.push(attemptId);
  }
  return [...groups.values()];
}

function isFenced(error: unknown): boolean {
  return isMillraceError(error, 'FENCED') || isMillraceError(error, 'NOT_LEADER');
}

function facts(message: CheckpointAck | CheckpointDecline) {
  const { checkpointId, vertexId, subtaskIndex, deployment } = message;
  return { checkpointId, vertexId, subtaskIndex, deployment };
}
