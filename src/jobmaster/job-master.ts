import { CheckpointDriver } from '../checkpoint/checkpoint-driver.ts';
import type { RunTaskStage } from '../checkpoint/coordinator-state.ts';
import { restoreTasks } from '../checkpoint/restore-tasks.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { type CheckpointOperation, isCheckpointOperation } from '../contracts/operations.ts';
import type { JobMasterHandle, JobOutcome } from '../contracts/job-master.ts';
import type { Slot, WorkerEvent } from '../contracts/slots.ts';
import type { WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline, IoMetrics, SlotDeployment } from '../contracts/task.ts';
import type { JobDetailsView } from '../contracts/views.ts';
import { buildSlotDeployments, type ExecutionPlan, expandJobGraph, type TaskKey } from '../graph/execution-graph.ts';
import { present, unreachable } from '../kernel/assert.ts';
import { sleep, type Timer } from '../kernel/clock.ts';
import { asError, isMillraceError, toErrorInfo, UnavailableError } from '../kernel/errors.ts';
import type { AllocationId, FencingToken, JobId, TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { type Backoff, retry } from '../kernel/retry.ts';
import { checkpointedRun } from './checkpointed-run.ts';
import { ExceptionHistory } from './exception-history.ts';
import { findRestorePoint } from './find-restore-point.ts';
import { initialJob, stepJob } from './job-machine.ts';
import {
  DEFAULT_ADOPTION_TIMEOUT_MS,
  DEFAULT_REGISTRATION_GRACE_MS,
  DEFAULT_RELEASE_TIMEOUT_MS,
  DEFAULT_SLOT_GRACE_MS,
  type JobMasterDeps,
  type JobMasterOptions,
} from './job-master-options.ts';
import type { Attempt, JobConstants, JobEffect, JobEvent, JobState, RestorePoint } from './job-state.ts';
import { viewJob } from './job-view.ts';
import { SerialMailbox } from './serial-mailbox.ts';
import { waitingText } from './waiting-text.ts';
import { WorkerCommands } from './worker-commands.ts';

function continuing(newest: RestorePoint, adopted: boolean) {
  const checkpoint = newest.kind === 'checkpoint' && newest.own ? newest.checkpoint : undefined;
  return { continues: { checkpoint, adopted } };
}

/** What the earlier leader still writes, late as it may be, must not lie where ours does. */
function takenUp(operation: CheckpointOperation, token: FencingToken): CheckpointOperation {
  const { request } = operation;
  if (request.kind !== 'SAVEPOINT') return operation;
  return { ...operation, request: { ...request, location: `${request.location}${token}/` } };
}

/** Inputs kept while suspended or behind a long turn; beyond this callers are asked to repeat them. */
const MAILBOX_MAX = 20_000;
const OPERATIONS_BACKOFF: Backoff = { initialMs: 100, maxMs: 5_000, multiplier: 2 };

/**
 * One job's master for one term of leadership: the shell around the job machine.
 *
 * Everything that happens is an event, handled one at a time in the mailbox. The machine decides; this
 * class carries out what it asks for and brings the answers back as events. While suspended the
 * mailbox keeps its events, so nothing is decided and no command is sent.
 */
export class JobMaster implements JobMasterHandle {
  readonly jobId: JobId;
  readonly terminated: Promise<JobOutcome>;
  private readonly log: Logger;
  private readonly plan: ExecutionPlan;
  private readonly job: JobConstants;
  private readonly mailbox: SerialMailbox;
  private readonly background: BackgroundTasks;
  private readonly commands: WorkerCommands;
  private readonly checkpoints: CheckpointDriver;
  private readonly exceptions = new ExceptionHistory();
  private readonly closing = new AbortController();
  private readonly requests = new Map<number, AbortController>();
  /** The newest heartbeat of each worker that waits in the mailbox: an older one says nothing more. */
  private readonly heartbeats = new Map<TaskManagerId, WorkerEvent & { readonly kind: 'reported' }>();
  private readonly io: (IoMetrics | undefined)[];
  private state: JobState;
  private timer: Timer | undefined;
  private waitingForSlots: { readonly missing: number; readonly clusterSlots: number } | undefined;
  private suspended = false;
  private fenced = false;
  private outcome: JobOutcome | undefined;
  private resolveTerminated: (outcome: JobOutcome) => void = () => {};
  private unsubscribe: () => void = () => {};

  private constructor(
    private readonly deps: JobMasterDeps,
    private readonly graph: JobGraph,
    token: FencingToken,
    private readonly options: JobMasterOptions,
  ) {
    this.jobId = graph.jobId;
    this.log = deps.log.child({ component: 'jobmaster', jobId: graph.jobId, token: String(token) });
    this.terminated = new Promise((resolve) => {
      this.resolveTerminated = resolve;
    });
    this.plan = expandJobGraph(graph);
    this.job = {
      jobId: graph.jobId,
      token,
      strategy: graph.config.restartStrategy,
      tasks: this.plan.tasks,
      slotsNeeded: this.plan.slotsNeeded,
      slotRequestTimeoutMs: options.slotRequestTimeoutMs,
      slotGraceMs: Math.min(options.slotGraceMs ?? DEFAULT_SLOT_GRACE_MS, options.slotRequestTimeoutMs),
      cancelTimeoutMs: options.cancelTimeoutMs,
      registrationGraceMs: options.registrationGraceMs ?? DEFAULT_REGISTRATION_GRACE_MS,
      adoptionTimeoutMs: options.adoptionTimeoutMs ?? DEFAULT_ADOPTION_TIMEOUT_MS,
    };
    this.state = initialJob(this.job, deps.clock.wallMs());
    this.io = this.plan.tasks.map(() => undefined);
    this.mailbox = new SerialMailbox((error) => this.broken(error));
    this.background = new BackgroundTasks(this.log);
    this.commands = new WorkerCommands({
      jobId: graph.jobId,
      log: this.log,
      background: this.background,
      post: (event) => this.post(event),
      onFenced: (reason) => this.onFenced(reason),
    });
    this.checkpoints = new CheckpointDriver({
      clock: deps.clock,
      random: deps.random,
      log: this.log,
      graph,
      token,
      store: deps.checkpoints.completed(graph.jobId),
      counter: deps.checkpoints.counter(graph.jobId),
      enqueue: (work) => this.mailbox.post(work),
      operations: deps.checkpoints.operations,
      onFailover: (error) => this.post({ kind: 'failover', error }),
      onCancel: () => this.post({ kind: 'cancel' }),
      onFenced: (reason) => this.onFenced(reason),
    });
  }

  /** Begins at once: reads the newest checkpoint, gets slots, deploys. Never throws for reasons of the world. */
  static start(deps: JobMasterDeps, graph: JobGraph, token: FencingToken, options: JobMasterOptions): JobMaster {
    const master = new JobMaster(deps, graph, token, options);
    master.log.info({ name: graph.name, slots: master.job.slotsNeeded, ...options }, 'job master started');
    const { cancelRequested, adopt = false } = options;
    master.post({ kind: 'start', cancelRequested, adopt });
    // Whoever subscribes hears of the workers at once: by then it must be known what to do with their tasks.
    master.unsubscribe = deps.slots.subscribe((event) => master.onWorker(event));
    master.background.run('take up operations of earlier terms', () => master.takeUpOperations());
    return master;
  }

  requestCheckpoint(operation: CheckpointOperation): void {
    this.mailbox.post(() => this.checkpoints.request(operation));
  }

  cancel(): void {
    this.post({ kind: 'cancel' });
  }

  suspend(): void {
    if (this.suspended || this.closing.signal.aborted) return;
    this.suspended = true;
    this.mailbox.suspend();
    this.checkpoints.suspend();
    this.log.warn({}, 'job master suspended');
  }

  resume(): void {
    if (!this.suspended || this.closing.signal.aborted) return;
    this.suspended = false;
    this.log.info({ waiting: this.mailbox.size }, 'job master resumed');
    this.checkpoints.resume();
    this.mailbox.resume();
  }

  updateTaskState(report: AttemptReport): boolean {
    const index = this.state.indexOf.get(report.attemptId);
    // While leadership is in doubt nobody is told to end anything; a heartbeat brings it up again.
    const undecided = this.suspended || !this.mailbox.isOpen || this.state.phase.kind === 'adopting';
    if (index === undefined && !undecided) return false;
    this.checkRoom();
    if (index !== undefined) this.io[index] = report.io;
    this.post({ kind: 'taskReport', report });
    return true;
  }

  acknowledgeCheckpoint(ack: CheckpointAck, from?: TaskManagerId): void {
    this.checkRoom();
    this.log.debug({ checkpointId: ack.checkpointId, subtask: ack.subtaskIndex, from }, 'checkpoint acknowledged');
    this.mailbox.post(() => this.checkpoints.acknowledge(ack));
  }

  declineCheckpoint(decline: CheckpointDecline): void {
    this.checkRoom();
    this.mailbox.post(() => this.checkpoints.decline(decline));
  }

  details(): JobDetailsView {
    if (this.outcome !== undefined) return this.outcome.details;
    const { clock } = this.deps;
    return viewJob({
      graph: this.graph,
      state: this.state,
      io: this.io,
      exceptions: this.exceptions.view(),
      checkpoints: this.checkpoints.view(),
      waitingFor: this.suspended
        ? 'leadership of this master is in doubt'
        : waitingText(this.state, this.waitingForSlots, clock.nowMs()),
      wallMs: clock.wallMs(),
    });
  }

  async close(): Promise<void> {
    if (this.closing.signal.aborted) return;
    this.closing.abort();
    this.unsubscribe();
    this.timer?.cancel();
    this.mailbox.close();
    for (const request of this.requests.values()) request.abort();
    await this.checkpoints.close();
    // Whoever holds a job that has ended closes it once its result is durable: workers may forget it.
    if (this.outcome !== undefined && !this.fenced) await this.deps.slots.releaseJob(this.jobId);
    this.log.info({ status: this.state.status }, 'job master closed');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private checkRoom(): void {
    if (this.mailbox.size < MAILBOX_MAX) return;
    throw new UnavailableError(`the master of job ${this.jobId} has too many inputs waiting`, {
      hint: 'Send it again shortly.',
    });
  }

  private post(event: JobEvent): void {
    this.mailbox.post(() => this.step(event));
  }

  private step(event: JobEvent): void {
    const { clock, random } = this.deps;
    const before = this.state.status;
    const context = { job: this.job, nowMs: clock.nowMs(), wallMs: clock.wallMs(), random };
    const { state, effects } = stepJob(this.state, event, context);
    this.state = state;
    if (state.status !== before) {
      this.log.info({ from: before, to: state.status, event: event.kind, phase: state.phase.kind }, 'job status');
    }
    const cancels: (JobEffect & { readonly kind: 'cancelTasks' })[] = [];
    for (const effect of effects) {
      if (effect.kind === 'cancelTasks') cancels.push(effect);
      else this.perform(effect);
    }
    if (cancels.length > 0) this.commands.cancel(cancels);
  }

  private perform(effect: Exclude<JobEffect, { readonly kind: 'cancelTasks' }>): void {
    switch (effect.kind) {
      case 'restore':
        this.background.run('find the checkpoint to restore', () => this.restore());
        return;
      case 'requestSlots':
        this.requestSlots(effect);
        return;
      case 'abandonRequest':
        this.requests.get(effect.request)?.abort();
        this.waitingForSlots = undefined;
        return;
      case 'releaseSlots': {
        // Asked at once: a provider that is just telling of a worker must not grant these again meanwhile.
        const released = this.deps.slots.releaseSlots(this.jobId, effect.allocationIds, effect.reason);
        this.background.run('release slots', () => this.slotsReleased(effect.allocationIds, released));
        return;
      }
      case 'deploy':
        this.deploy(effect);
        return;
      case 'adopt':
        this.adopt(effect);
        return;
      case 'notAdopted':
        this.notAdopted(effect.reason);
        return;
      case 'stopCheckpoints':
        this.checkpoints.stopRun(effect.reason, { partly: effect.partly });
        return;
      case 'taskChanged':
        this.taskChanged(effect.index);
        return;
      case 'recordFailure': {
        const { error, taskIndex, taskManagerId } = effect;
        const task = taskIndex === undefined ? undefined : this.state.tasks[taskIndex];
        const taskName = taskIndex === undefined ? undefined : this.job.tasks[taskIndex]?.name;
        this.log.error({ error, taskName, taskManagerId }, 'job failed');
        const location = task?.attempt?.host;
        this.exceptions.record(error, { taskName, taskManagerId, location }, this.deps.clock.wallMs());
        return;
      }
      case 'timer': {
        const { generation } = effect;
        this.timer?.cancel();
        this.timer = this.deps.clock.schedule(effect.delayMs, () => this.post({ kind: 'timer', generation }));
        return;
      }
      case 'ended':
        this.background.run('end the job', () => this.ended(effect));
        return;
      default:
        unreachable(effect);
    }
  }

  private onWorker(event: WorkerEvent): void {
    switch (event.kind) {
      case 'registered':
        this.mailbox.post(() => this.workerReported(event));
        return;
      case 'reported': {
        const waiting = this.heartbeats.has(event.taskManagerId);
        this.heartbeats.set(event.taskManagerId, event);
        if (waiting) return;
        this.mailbox.post(() => {
          const newest = this.heartbeats.get(event.taskManagerId);
          this.heartbeats.delete(event.taskManagerId);
          if (newest !== undefined) this.workerReported(newest);
        });
        return;
      }
      case 'settled':
        this.post({ kind: 'workersSettled' });
        return;
      case 'lost':
        this.post({ kind: 'workerLost', taskManagerId: event.taskManagerId, reason: event.reason });
        return;
      default:
        unreachable(event);
    }
  }

  private workerReported(event: WorkerEvent & { readonly report: WorkerReport }): void {
    for (const attempt of event.report.attempts) {
      const index = this.state.indexOf.get(attempt.attemptId);
      if (index !== undefined) this.io[index] = attempt.io;
    }
    const registered = event.kind === 'registered';
    this.step({ kind: 'workerReport', registered, report: event.report, claimed: this.claim(event.report) });
  }

  /** While it is found out what runs, the slots in which it runs become ours, so that nobody frees them. */
  private claim(report: WorkerReport): readonly Slot[] {
    if (this.state.phase.kind !== 'adopting') return [];
    const ours = report.slots.flatMap(({ allocation }) =>
      allocation?.jobId === this.jobId ? [allocation.allocationId] : [],
    );
    return ours.length === 0 ? [] : this.deps.slots.claimSlots(this.jobId, ours);
  }

  /** What an earlier leader was asked for and did not come to. */
  private async takeUpOperations(): Promise<void> {
    const { clock, random, checkpoints } = this.deps;
    const signal = this.closing.signal;
    try {
      const pending = await retry(
        { clock, random },
        {
          backoff: OPERATIONS_BACKOFF,
          retryable: () => true,
          onRetry: (err, attempt) => this.log.warn({ err: asError(err), attempt }, 'operations could not be listed'),
          signal,
        },
        () => checkpoints.operations.pending(this.jobId),
      );
      for (const operation of pending) {
        if (isCheckpointOperation(operation)) this.requestCheckpoint(takenUp(operation, this.job.token));
      }
    } catch (error) {
      if (!signal.aborted) throw error; // else the term is over, and so is our interest
    }
  }

  private async restore(): Promise<void> {
    // A checkpoint whose outcome is not yet known may be the newest one.
    await this.checkpoints.settled();
    const outcome = await findRestorePoint(
      { checkpoints: this.deps.checkpoints, log: this.log },
      this.graph,
      this.job.token,
    );
    switch (outcome.kind) {
      case 'fenced':
        this.onFenced(outcome.reason);
        return;
      case 'failed':
        // A store that is away for a moment explains itself; anything else somebody has to see to.
        if (outcome.error.code === 'UNAVAILABLE')
          this.log.warn({ error: outcome.error }, 'job not restored yet, trying again');
        else this.log.error({ error: outcome.error, permanent: outcome.permanent }, 'job cannot be restored');
        this.post({ kind: 'restoreFailed', error: outcome.error, permanent: outcome.permanent });
        return;
      case 'restored': {
        const nowhere = { taskName: undefined, taskManagerId: undefined, location: undefined };
        for (const error of outcome.passedOver) this.exceptions.record(error, nowhere, this.deps.clock.wallMs());
        this.post({ kind: 'restored', restore: outcome.restore });
        return;
      }
      default:
        unreachable(outcome);
    }
  }

  private requestSlots(effect: JobEffect & { readonly kind: 'requestSlots' }): void {
    const { request, count, timeoutMs } = effect;
    const controller = new AbortController();
    this.requests.set(request, controller);
    this.background.run('request slots', async () => {
      try {
        const slots = await this.deps.slots.requestSlots({
          jobId: this.jobId,
          count,
          priority: this.options.priority ?? 0,
          timeoutMs,
          signal: controller.signal,
          onWaiting: (missing, clusterSlots) => {
            if (!controller.signal.aborted) this.waitingForSlots = { missing, clusterSlots };
          },
        });
        this.post({ kind: 'slotsGranted', request, slots });
      } catch (error) {
        if (controller.signal.aborted) return; // Nobody waits for this answer any more.
        if (isMillraceError(error, 'FENCED')) this.onFenced(error.message);
        // The provider goes with its term, and so will this master: that says nothing about the job.
        else if (isMillraceError(error, 'CLOSED') || isMillraceError(error, 'NOT_LEADER'))
          this.log.warn({ err: error }, 'slot provider has closed');
        else {
          const clusterSlots = this.waitingForSlots?.clusterSlots;
          this.post({ kind: 'slotsDenied', request, error: toErrorInfo(error), clusterSlots });
        }
      } finally {
        this.requests.delete(request);
        if (this.requests.size === 0) this.waitingForSlots = undefined;
      }
    });
  }

  /** Bounded: a worker that does not answer is cut off, and what it still runs is fenced by its deployment. */
  private async slotsReleased(allocationIds: readonly AllocationId[], released: Promise<void>): Promise<void> {
    const { clock } = this.deps;
    const done = new AbortController();
    const timeoutMs = this.options.releaseTimeoutMs ?? DEFAULT_RELEASE_TIMEOUT_MS;
    const stop = AbortSignal.any([done.signal, this.closing.signal]);
    const timeout = sleep(clock, timeoutMs, stop).then(() => 'late' as const);
    try {
      const outcome = await Promise.race([released, timeout]);
      if (outcome === 'late' && !this.closing.signal.aborted)
        this.log.warn({ allocationIds, timeoutMs }, 'slots were not given back in time');
    } catch (error) {
      this.log.error({ err: asError(error), allocationIds }, 'slots could not be given back');
    } finally {
      done.abort();
    }
    for (const allocationId of allocationIds) this.post({ kind: 'slotReleased', allocationId });
  }

  private deploy({ deployment, restore, regions, oldestLive }: JobEffect & { readonly kind: 'deploy' }): void {
    const { graph, plan, state } = this;
    const slots = new Map([...state.slots.values()].map((held) => [held.slotNumber, held.slot]));
    const attempts = new Map<TaskKey, Attempt>();
    plan.tasks.forEach((task, index) => {
      if (regions.has(task.region)) this.io[index] = undefined;
      attempts.set(task.key, present(state.tasks[index]?.attempt, 'attempt of a deployed task'));
    });
    const suspended = restore.kind === 'checkpoint' && restore.stopped;
    let messages: ReadonlyMap<AllocationId, SlotDeployment>;
    try {
      messages = buildSlotDeployments(plan, {
        deployment,
        oldestLive,
        regions,
        allocations: slots,
        attempts,
        suspended,
        ...(restore.kind === 'fresh' ? {} : { restore: restoreTasks(graph, restore.checkpoint.metadata) }),
      });
    } catch (error) {
      // A checkpoint that decodes and yet cannot be dealt out is this job's trouble, not the process's.
      this.post({ kind: 'failover', error: toErrorInfo(error) });
      return;
    }
    const checkpointId = restore.kind === 'fresh' ? undefined : restore.checkpoint.metadata.checkpointId;
    const partly = regions.size < plan.regions.length;
    const facts = { deployment, slots: messages.size, regions: regions.size, checkpointId };
    this.log.info(facts, partly ? 'regions deployed' : 'job deployed');
    if (restore.kind === 'checkpoint') this.checkpoints.restored(restore.checkpoint, { own: restore.own });
    this.startRun(partly ? continuing(restore, false) : undefined, suspended);
    for (const [allocationId, message] of messages) {
      this.commands.submit(present(state.slots.get(allocationId), 'slot of a deployment').slot, message);
    }
  }

  /** `complete`: all of the job's tasks go on; otherwise the others are deployed next. */
  private adopt({ restore, complete }: JobEffect & { readonly kind: 'adopt' }): void {
    const { state, plan } = this;
    const tasks = plan.tasks.filter(({ region }) => !state.restarting.has(region)).length;
    const checkpointId = restore.kind === 'fresh' ? undefined : restore.checkpoint.metadata.checkpointId;
    this.log.info({ tasks, of: plan.tasks.length, complete, checkpointId }, 'job adopted');
    if (restore.kind === 'checkpoint' && restore.own) this.checkpoints.adopted(restore.checkpoint);
    if (complete) this.startRun(continuing(restore, true), restore.kind === 'checkpoint' && restore.stopped);
    else this.checkpoints.continueTasks({ ...checkpointedRun(plan, state), ...continuing(restore, true) });
  }

  /** With `continued`, tasks go on that are older than the run. */
  private startRun(continued: ReturnType<typeof continuing> | undefined, suspended: boolean): void {
    this.checkpoints.startRun({ ...checkpointedRun(this.plan, this.state), ...continued, suspended });
    if (continued !== undefined) for (const index of this.plan.tasks.keys()) this.taskChanged(index);
  }

  private taskChanged(index: number): void {
    const task = this.state.tasks[index];
    if (task === undefined) return;
    const stage: RunTaskStage =
      task.state === 'RUNNING' ? 'running' : task.state === 'FINISHED' ? 'finished' : 'starting';
    this.checkpoints.taskChanged(index, stage, { atEnd: task.endOfData, drained: task.drained });
  }

  private notAdopted(reason: string): void {
    this.log.warn({ reason }, 'job not adopted');
    const message = `tasks of the former leader were not adopted and begin again from the newest checkpoint: ${reason}`;
    const nowhere = { taskName: undefined, taskManagerId: undefined, location: undefined };
    this.exceptions.record({ code: 'UNAVAILABLE', message }, nowhere, this.deps.clock.wallMs());
    this.deps.onNotAdopted?.(this.jobId, reason);
  }

  private async ended(effect: JobEffect & { readonly kind: 'ended' }): Promise<void> {
    // The job's checkpoints are cleaned up next: none may appear after that.
    await this.checkpoints.settled();
    this.mailbox.post(() => {
      const { status, error } = effect;
      this.outcome = { jobId: this.jobId, status, error, details: this.details() };
      this.log.info({ status, error }, 'job ended');
      this.resolveTerminated(this.outcome);
    });
  }

  private onFenced(reason: string): void {
    if (this.fenced || this.closing.signal.aborted) return;
    this.fenced = true;
    this.log.warn({ reason }, 'job master is fenced');
    this.mailbox.close();
    this.timer?.cancel();
    for (const request of this.requests.values()) request.abort();
    // Notices are repeated by themselves: they too are no longer ours to send.
    this.background.run('stop checkpoints', () => this.checkpoints.close());
    this.deps.onFenced(reason);
  }

  /** A bug: this master decides nothing more, and the process ends by the uncaught error. */
  private broken(error: unknown): void {
    this.log.error({ err: asError(error), phase: this.state.phase.kind }, 'job master is broken');
    queueMicrotask(() => {
      throw error;
    });
  }
}
