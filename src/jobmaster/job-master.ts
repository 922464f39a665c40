import { CheckpointDriver, type CheckpointedRun } from '../checkpoint/checkpoint-driver.ts';
import type { RunTaskStage } from '../checkpoint/coordinator-state.ts';
import { restoreTasks } from '../checkpoint/restore-tasks.ts';
import { upstreamOf } from '../graph/upstream.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { type CheckpointOperation, isCheckpointOperation } from '../contracts/operations.ts';
import type { JobMasterHandle, JobOutcome } from '../contracts/job-master.ts';
import type { Slot, WorkerEvent } from '../contracts/slots.ts';
import type { TaskManagerGateway } from '../contracts/task-manager-gateway.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline, IoMetrics, SlotDeployment } from '../contracts/task.ts';
import type { JobDetailsView } from '../contracts/views.ts';
import { buildSlotDeployments, type ExecutionPlan, expandJobGraph, type TaskKey } from '../graph/execution-graph.ts';
import { present, unreachable } from '../kernel/assert.ts';
import { sleep, type Timer } from '../kernel/clock.ts';
import { asError, isMillraceError, toErrorInfo, UnavailableError } from '../kernel/errors.ts';
import type { AllocationId, DeploymentId, FencingToken, JobId, TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { type Backoff, retry } from '../kernel/retry.ts';
import { ExceptionHistory } from './exception-history.ts';
import { findRestorePoint } from './find-restore-point.ts';
import { initialJob, stepJob } from './job-machine.ts';
import {
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
    master.unsubscribe = deps.slots.subscribe((event) => master.onWorker(event));
    master.post({ kind: 'start', cancelRequested: options.cancelRequested });
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
    if (index === undefined) return this.suspended || !this.mailbox.isOpen;
    this.checkRoom();
    this.io[index] = report.io;
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
        this.deploy(effect.deployment, effect.restore);
        return;
      case 'stopCheckpoints':
        this.checkpoints.stopRun(effect.reason);
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
      case 'lost':
        this.post({ kind: 'workerLost', taskManagerId: event.taskManagerId, reason: event.reason });
        return;
      default:
        unreachable(event);
    }
  }

  private workerReported(event: Exclude<WorkerEvent, { readonly kind: 'lost' }>): void {
    for (const attempt of event.report.attempts) {
      const index = this.state.indexOf.get(attempt.attemptId);
      if (index !== undefined) this.io[index] = attempt.io;
    }
    this.step({ kind: 'workerReport', registered: event.kind === 'registered', report: event.report });
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
        if (isCheckpointOperation(operation)) this.requestCheckpoint(operation);
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
        this.log.error({ error: outcome.error, permanent: outcome.permanent }, 'job cannot be restored');
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

  private deploy(deployment: DeploymentId, restore: RestorePoint): void {
    const { graph, plan, state } = this;
    this.io.fill(undefined);
    const slots = new Map<number, Slot>();
    const gateways = new Map<TaskManagerId, TaskManagerGateway>();
    for (const held of state.slots.values()) {
      slots.set(held.slotNumber, held.slot);
      gateways.set(held.slot.taskManagerId, held.slot.gateway);
    }
    const attempts = new Map<TaskKey, Attempt>();
    plan.tasks.forEach((task, index) => {
      attempts.set(task.key, present(state.tasks[index]?.attempt, 'attempt of a deployed task'));
    });
    const suspended = restore.kind === 'checkpoint' && restore.stopped;
    let messages: ReadonlyMap<AllocationId, SlotDeployment>;
    try {
      messages = buildSlotDeployments(plan, {
        deployment,
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
    this.log.info({ deployment, slots: slots.size, workers: gateways.size, checkpointId }, 'job deployed');
    if (restore.kind === 'checkpoint') this.checkpoints.restored(restore.checkpoint, { own: restore.own });
    this.checkpoints.startRun({ deployment, tasks: this.runTasks(attempts), gateways, suspended });
    for (const [allocationId, message] of messages) {
      this.commands.submit(present(state.slots.get(allocationId), 'slot of a deployment').slot, message);
    }
  }

  private runTasks(attempts: ReadonlyMap<TaskKey, Attempt>): CheckpointedRun['tasks'] {
    return this.plan.tasks.map(({ key, vertexId, subtaskIndex }) => {
      const { attemptId, taskManagerId } = present(attempts.get(key), 'attempt');
      const upstream = upstreamOf(this.graph, vertexId, subtaskIndex);
      return { vertexId, subtaskIndex, attemptId, taskManagerId, upstream };
    });
  }

  private taskChanged(index: number): void {
    const task = this.state.tasks[index];
    if (task === undefined) return;
    const stage: RunTaskStage =
      task.state === 'RUNNING' ? 'running' : task.state === 'FINISHED' ? 'finished' : 'starting';
    this.checkpoints.taskChanged(index, stage, task.endOfData);
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
