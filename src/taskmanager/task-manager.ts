import type { HardwareDescription, TaskManagerHandler, WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { LeaderInfo, LeaderRetrieval } from '../contracts/leadership.ts';
import type { AttemptReport } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError, NotFoundError, toErrorInfo } from '../kernel/errors.ts';
import type { AllocationId, AttemptId, FencingToken, JobId, TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { present } from '../kernel/assert.ts';
import { AttemptLedger } from './attempt-ledger.ts';
import { CheckpointMessages } from './checkpoint-messages.ts';
import { type JobManagerConnection, LeaderLink } from './leader-link.ts';
import type { SlotHost } from './slot-host.ts';
import { emptySlotTable, reportSlots, type SlotEvent, type SlotOutcome, slotOf, stepSlotTable } from './slot-table.ts';
import { StateReports } from './state-reports.ts';
import { TaskSlot } from './task-slot.ts';

export interface TaskManagerDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly leaderRetrieval: LeaderRetrieval;
  /** Opens a gateway whose calls carry `leader.token`. */
  readonly connectJobManager: (leader: LeaderInfo) => JobManagerConnection;
  /** Closed by the TaskManager. */
  readonly slotHost: SlotHost;
  readonly hardware: () => HardwareDescription;
  /** A job is over and none of its tasks is left here: what was kept for it may go. */
  readonly onJobReleased?: (jobId: JobId) => Promise<void>;
}

export interface TaskManagerOptions {
  readonly taskManagerId: TaskManagerId;
  /** `host:port` under which the leader reaches this worker's gateway. */
  readonly rpcAddress: string;
  readonly dataHost: string;
  /** First data port; slot n takes this plus n. 0 (the default): any free ones. */
  readonly dataPort?: number;
  readonly slots: number;
  readonly pid: number;
  /** `task.cancellation.timeout` */
  readonly cancellationTimeoutMs: number;
  /** `heartbeat.timeout`, until a leader says what it uses. */
  readonly heartbeatTimeoutMs: number;
}

type Nothing = Record<string, never>;

/**
 * One worker: slots, the attempts in them, and its place under whoever leads.
 *
 * Everything here runs on the main thread and touches no user code, so a heartbeat is answered at once
 * whatever the slots do. Serve it as `TaskManagerHandler` on `options.rpcAddress` before, or in the same
 * turn in which, `start` returns: the leader calls back as soon as it has the registration.
 */
export class TaskManager implements TaskManagerHandler, Closeable {
  private table;
  private readonly slots = new Map<number, TaskSlot>();
  private readonly ledger = new AttemptLedger();
  private readonly background: BackgroundTasks;
  private readonly link: LeaderLink;
  private readonly stateReports: StateReports;
  private readonly checkpointMessages: CheckpointMessages;
  private readonly closingSlots = new Map<number, Promise<void>>();
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly deps: TaskManagerDeps,
    private readonly options: TaskManagerOptions,
  ) {
    const { clock, random, log } = deps;
    this.table = emptySlotTable(options.slots);
    this.background = new BackgroundTasks(log);
    this.link = new LeaderLink(
      deps,
      {
        registration: () => this.registration(),
        registered: (connection) => this.onRegistered(connection),
        disconnected: (replaced) => this.onDisconnected(replaced),
        cutOff: (silentMs) => this.onCutOff(silentMs),
      },
      options.heartbeatTimeoutMs,
    );
    const onAnswered = () => this.link.answered();
    this.checkpointMessages = new CheckpointMessages({ clock, random, log, onAnswered });
    this.stateReports = new StateReports({
      clock,
      random,
      log,
      onAnswered,
      onUnknown: (attemptId) => this.onUnknownAttempt(attemptId),
    });
  }

  /** Begins to look for the leader; registering goes on in the background. */
  static async start(deps: TaskManagerDeps, options: TaskManagerOptions): Promise<TaskManager> {
    const taskManager = new TaskManager(deps, options);
    taskManager.link.start();
    return taskManager;
  }

  /** The leader with which this worker is registered now. */
  get registeredWith(): FencingToken | undefined {
    return this.link.registeredWith;
  }

  async allocateSlot(
    request: { slotIndex: number; allocationId: AllocationId; jobId: JobId },
    token: FencingToken,
  ): Promise<{ dataAddress: { host: string; port: number } }> {
    for (;;) {
      this.admit(token);
      const outcome = this.step({ kind: 'allocate', ...request });
      switch (outcome.kind) {
        case 'allocated':
          return this.openSlot(request);
        case 'already':
          return { dataAddress: await present(this.slots.get(request.slotIndex), 'allocated slot').open() };
        case 'closing':
          await this.closingSlots.get(outcome.slotIndex);
          continue;
        case 'refused':
          throw new MillraceError('CONFLICT', `${this.options.taskManagerId}: ${outcome.reason}`);
        default:
          throw new MillraceError('INTERNAL', `unexpected outcome ${outcome.kind}`);
      }
    }
  }

  async freeSlot(request: { allocationId: AllocationId; reason: string }, token: FencingToken): Promise<Nothing> {
    this.admit(token);
    await this.free(request.allocationId, request.reason);
    return {};
  }

  async submitTasks(
    deployment: Parameters<TaskManagerHandler['submitTasks']>[0],
    token: FencingToken,
  ): Promise<Nothing> {
    this.admit(token);
    const slotIndex = slotOf(this.table, deployment.allocationId);
    const slot = slotIndex === undefined ? undefined : this.slots.get(slotIndex);
    if (slot === undefined || slot.jobId !== deployment.jobId)
      throw new NotFoundError(
        `${this.options.taskManagerId} holds no allocation ${deployment.allocationId} for job ${deployment.jobId}`,
        {
          hint: 'Ask for slots again.',
        },
      );
    await slot.submit(deployment, () => this.admit(token));
    return {};
  }

  async cancelTasks(request: { jobId: JobId; attemptIds: AttemptId[] }, token: FencingToken): Promise<Nothing> {
    this.admit(token);
    // Every slot of the job is asked: an attempt may still be on its way into one.
    for (const slot of this.slotsOf(request.jobId)) slot.cancel(request.attemptIds);
    return {};
  }

  async triggerCheckpoint(
    request: Parameters<TaskManagerHandler['triggerCheckpoint']>[0],
    token: FencingToken,
  ): Promise<Nothing> {
    this.admit(token);
    for (const [slotIndex, slot] of this.slots) {
      if (slot.jobId !== request.jobId) continue;
      const attemptIds = request.attemptIds.filter(
        (attemptId) => this.ledger.slotIndexOf(attemptId) === slotIndex && this.ledger.isLive(attemptId),
      );
      if (attemptIds.length > 0) slot.triggerCheckpoint({ ...request, attemptIds });
    }
    return {};
  }

  async notifyCheckpointComplete(
    request: Parameters<TaskManagerHandler['notifyCheckpointComplete']>[0],
    token: FencingToken,
  ): Promise<Nothing> {
    this.admit(token);
    for (const slot of this.slotsOf(request.jobId)) slot.notifyCheckpointComplete(request);
    return {};
  }

  async notifyCheckpointAborted(
    request: Parameters<TaskManagerHandler['notifyCheckpointAborted']>[0],
    token: FencingToken,
  ): Promise<Nothing> {
    this.admit(token);
    const { deployment, checkpointId, latestCompletedId, andOlder } = request;
    for (const slot of this.slotsOf(request.jobId))
      slot.notifyCheckpointAborted({ deployment, checkpointId, latestCompletedId, andOlder });
    return {};
  }

  async releaseJob({ jobId }: { jobId: JobId }, token: FencingToken): Promise<Nothing> {
    this.admit(token);
    // Terminal is terminal: whatever still runs for the job is a leftover.
    for (const slot of this.table.slots)
      if (slot.kind !== 'free' && slot.jobId === jobId) await this.free(slot.allocationId, 'the job is over');
    this.ledger.forgetJob(jobId);
    this.stateReports.forgetJob(jobId);
    this.checkpointMessages.forgetJob(jobId);
    const { onJobReleased } = this.deps;
    if (onJobReleased !== undefined) this.background.run('forget job', () => onJobReleased(jobId));
    return {};
  }

  async heartbeat(_request: object, token: FencingToken): Promise<WorkerReport> {
    this.admit(token);
    return this.report();
  }

  /** Ends all tasks, says goodbye, so that the leader redeploys at once. Idempotent. */
  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async shutDown(): Promise<void> {
    // First the tasks, then the goodbye: what the leader redeploys must no longer run here.
    this.stateReports.detach();
    await Promise.all([...this.slots.values()].map((slot) => slot.close()));
    await this.deps.slotHost.close();
    await this.link.close('the worker shuts down');
    await Promise.all([this.stateReports.close(), this.checkpointMessages.close()]);
    await this.background.drain();
  }

  private admit(token: FencingToken): void {
    if (this.closing !== undefined) throw new MillraceError('CLOSED', `${this.options.taskManagerId} is closing`);
    this.link.admit(token);
  }

  private step(event: SlotEvent): SlotOutcome {
    const { table, outcome } = stepSlotTable(this.table, event);
    this.table = table;
    return outcome;
  }

  private async openSlot(request: {
    slotIndex: number;
    allocationId: AllocationId;
    jobId: JobId;
  }): Promise<{ dataAddress: { host: string; port: number } }> {
    const { slotIndex, allocationId, jobId } = request;
    const slot = this.createSlot(slotIndex, jobId);
    this.slots.set(slotIndex, slot);
    this.deps.log.info({ slotIndex, allocationId, jobId }, 'slot allocated');
    let dataAddress: { host: string; port: number };
    try {
      dataAddress = await slot.open();
    } catch (error) {
      await this.free(allocationId, 'its engine did not start');
      throw error;
    }
    if (this.table.slots[slotIndex]?.kind !== 'allocated' || this.slots.get(slotIndex) !== slot)
      throw new MillraceError('CONFLICT', `allocation ${allocationId} was given back while its slot started`);
    return { dataAddress };
  }

  private createSlot(slotIndex: number, jobId: JobId): TaskSlot {
    const { clock, random, log, slotHost: host } = this.deps;
    const { taskManagerId, cancellationTimeoutMs, dataPort = 0 } = this.options;
    return new TaskSlot(
      {
        ...{ clock, random, log, host, ledger: this.ledger, background: this.background },
        events: {
          attemptChanged: (report) => this.onAttemptChanged(report),
          checkpointAck: (ack) => this.checkpointMessages.enqueue({ kind: 'ack', ack }),
          checkpointDecline: (decline) => this.checkpointMessages.enqueue({ kind: 'decline', decline }),
          unusable: (index, error) => this.onSlotUnusable(index, error),
        },
      },
      {
        slotIndex,
        name: `${taskManagerId}/slot-${slotIndex}`,
        listenPort: dataPort === 0 ? 0 : dataPort + slotIndex,
        cancellationTimeoutMs,
      },
      jobId,
    );
  }

  /** Resolves once the slot is free again. */
  private async free(allocationId: AllocationId, reason: string): Promise<void> {
    const outcome = this.step({ kind: 'free', allocationId });
    if (outcome.kind === 'closing') await this.closingSlots.get(outcome.slotIndex);
    if (outcome.kind !== 'freeing') return;
    const { slotIndex } = outcome;
    this.deps.log.info({ slotIndex, allocationId, reason }, 'slot given back');
    const closing = this.closeSlot(slotIndex);
    this.closingSlots.set(slotIndex, closing);
    await closing;
  }

  private async closeSlot(slotIndex: number): Promise<void> {
    try {
      await this.slots.get(slotIndex)?.close();
    } finally {
      this.slots.delete(slotIndex);
      this.closingSlots.delete(slotIndex);
      this.step({ kind: 'closed', slotIndex });
    }
  }

  private slotsOf(jobId: JobId): TaskSlot[] {
    return [...this.slots.values()].filter((slot) => slot.jobId === jobId);
  }

  private report(): WorkerReport {
    for (const slot of this.slots.values()) slot.refresh();
    return {
      taskManagerId: this.options.taskManagerId,
      slots: reportSlots(this.table, (slotIndex) => this.slots.get(slotIndex)?.dataAddress),
      attempts: this.ledger.reports(),
      freeMemoryBytes: this.deps.hardware().freeMemoryBytes,
    };
  }

  private registration() {
    const { taskManagerId, rpcAddress, dataHost, slots, pid } = this.options;
    const hardware = this.deps.hardware();
    return { taskManagerId, rpcAddress, dataHost, slots, pid, hardware, report: this.report() };
  }

  private onAttemptChanged(report: AttemptReport): void {
    const { jobId, vertexId, subtaskIndex, attemptId, state, error } = report;
    const fields = { jobId, vertexId, subtaskIndex, attemptId, to: state };
    if (error === undefined) this.deps.log.info(fields, 'task changed state');
    else this.deps.log.warn({ ...fields, code: error.code, reason: error.message }, 'task changed state');
    this.stateReports.enqueue(report);
  }

  private onUnknownAttempt(attemptId: AttemptId): void {
    const slotIndex = this.ledger.slotIndexOf(attemptId);
    this.deps.log.warn({ attemptId }, 'the leader does not know this attempt, ending it');
    if (slotIndex !== undefined) this.slots.get(slotIndex)?.cancel([attemptId]);
  }

  private onSlotUnusable(slotIndex: number, error: Error): void {
    const slot = this.table.slots[slotIndex];
    if (slot === undefined || slot.kind !== 'allocated') return;
    this.deps.log.error({ slotIndex, err: error }, 'slot engine cannot be replaced, its allocation is void');
    this.background.run('free unusable slot', () => this.free(slot.allocationId, error.message));
  }

  private onRegistered(connection: JobManagerConnection): void {
    this.stateReports.attach((report) => connection.updateTaskState(report));
    this.checkpointMessages.attach({
      acknowledge: (ack) => connection.acknowledgeCheckpoint(ack),
      decline: (decline) => connection.declineCheckpoint(decline),
    });
  }

  private onDisconnected(replaced: boolean): void {
    this.stateReports.detach();
    if (replaced) this.checkpointMessages.clear();
    else this.checkpointMessages.detach();
  }

  private onCutOff(silentMs: number): void {
    const error = new MillraceError('UNAVAILABLE', `the worker could not reach the leader for ${silentMs} ms`, {
      hint: 'Its tasks run elsewhere by now.',
    });
    for (const [slotIndex, slot] of this.slots) {
      const live = this.ledger.liveIn(slotIndex).map(({ attemptId }) => attemptId);
      if (live.length > 0) slot.cancel(live, toErrorInfo(error));
    }
  }
}
