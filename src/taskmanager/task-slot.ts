import { isTerminalExecutionState } from '../contracts/job-status.ts';
import {
  type AttemptReport,
  attemptReportSchema,
  type CheckpointAck,
  type CheckpointDecline,
  type DataAddress,
  ioMetricsSchema,
  type SlotDeployment,
} from '../contracts/task.ts';
import { type Clock, sleep, type Timer } from '../kernel/clock.ts';
import { asError, type ErrorInfo, MillraceError, toErrorInfo } from '../kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type JobId } from '../kernel/ids.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../kernel/retry.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import { type AttemptLedger, subtaskOf } from './attempt-ledger.ts';
import type { SlotHost } from './slot-host.ts';

export interface TaskSlotDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly host: SlotHost;
  readonly ledger: AttemptLedger;
  readonly background: BackgroundTasks;
  readonly events: {
    attemptChanged(report: AttemptReport): void;
    checkpointAck(ack: CheckpointAck): void;
    checkpointDecline(decline: CheckpointDecline): void;
    /** No engine can be had for this slot any more: its allocation is void. */
    unusable(slotIndex: number, error: Error): void;
  };
}

export interface TaskSlotOptions {
  readonly slotIndex: number;
  readonly name: string;
  /** Port for data, or 0. */
  readonly listenPort: number;
  readonly cancellationTimeoutMs: number;
}

const REPLACE_TRIES = 4;

/**
 * One slot while a job holds it: its engine, and the way from "cancel" to "ended".
 *
 * Invariants:
 *   S1. CANCELED or FAILED is reported only once the task's code can do nothing more.
 *   S2. The older attempts of a subtask, and all of deployments that are over, have ended before newer tasks start.
 *   S3. A cancelled task ends within the cancellation time-out, with its thread if need be.
 */
export class TaskSlot {
  private engine: Promise<SlotRuntimePort> | undefined;
  private runtime: SlotRuntimePort | undefined;
  /** Changes with every engine, so that a dead engine's last words are not taken for the new one's. */
  private epoch = 0;
  private replacing = false;
  private closed = false;
  private readonly cancelTimers = new Map<AttemptId, Timer>();
  /** Attempts cancelled for a reason that is a failure. */
  private readonly failures = new Map<AttemptId, ErrorInfo>();
  /** Cancelled while their deployment was still on its way to the engine. */
  private readonly cancelledEarly = new Set<AttemptId>();
  /** Deployments before this one are over. */
  private floor: DeploymentId | undefined;
  private submitting = 0;
  private submitQueue: Promise<void> = Promise.resolve();
  private readonly endWaiters = new Set<() => void>();
  private readonly stopped = new AbortController();

  constructor(
    private readonly deps: TaskSlotDeps,
    private readonly options: TaskSlotOptions,
    readonly jobId: JobId,
  ) {}

  /** Where the engine is read; undefined while there is none. */
  get dataAddress(): DataAddress | undefined {
    return this.runtime?.dataAddress;
  }

  /** Starts the engine, once; resolves with the address under which other slots read from this one. */
  async open(): Promise<DataAddress> {
    this.engine ??= this.openEngine(this.options.listenPort);
    return (await this.engine).dataAddress;
  }

  /**
   * Hands tasks to the engine, after those of older deployments have ended (S2). Resolves once they are
   * entered in the ledger; their failure to start is a state update like any other. `admit` throws when
   * the caller was fenced while waiting.
   */
  submit(deployment: SlotDeployment, admit: () => void): Promise<void> {
    this.submitting++;
    const result = this.submitQueue.then(() => this.submitNow(deployment, admit));
    this.submitQueue = result.then(
      () => undefined,
      () => undefined, // The submitter has it; the queue only needs to know that it is over.
    );
    return result.finally(() => {
      this.submitting--;
      if (this.submitting === 0) this.cancelledEarly.clear();
    });
  }

  /** With `failure` the attempts end FAILED for that reason instead of CANCELED. */
  cancel(attemptIds: readonly AttemptId[], failure?: ErrorInfo): void {
    const { ledger, clock } = this.deps;
    const asked: AttemptId[] = [];
    for (const attemptId of attemptIds) {
      if (!ledger.isLive(attemptId)) {
        if (this.submitting > 0 && !ledger.has(attemptId)) this.cancelledEarly.add(attemptId);
        continue;
      }
      if (failure !== undefined) this.failures.set(attemptId, failure);
      asked.push(attemptId);
      if (this.cancelTimers.has(attemptId)) continue;
      const timer = clock.schedule(this.options.cancellationTimeoutMs, () => this.cancellationTimedOut(attemptId));
      this.cancelTimers.set(attemptId, timer);
    }
    if (asked.length > 0) this.runtime?.cancel(asked);
  }

  triggerCheckpoint(request: Parameters<SlotRuntimePort['triggerCheckpoint']>[0]): void {
    this.runtime?.triggerCheckpoint(request);
  }

  notifyCheckpointComplete(request: Parameters<SlotRuntimePort['notifyCheckpointComplete']>[0]): void {
    this.runtime?.notifyCheckpointComplete(request);
  }

  notifyCheckpointAborted(request: Parameters<SlotRuntimePort['notifyCheckpointAborted']>[0]): void {
    this.runtime?.notifyCheckpointAborted(request);
  }

  /** Brings the ledger's counters up to what the engine last said; never waits. */
  refresh(): void {
    for (const report of this.runtime?.attempts() ?? [])
      if (ioMetricsSchema.safeParse(report.io).success) this.deps.ledger.refresh(report);
  }

  /** Ends the engine and with it all that runs; what was live is CANCELED. Idempotent. */
  async close(): Promise<void> {
    this.closed = true;
    this.stopped.abort();
    this.epoch++;
    this.runtime = undefined;
    const engine = this.engine;
    this.wakeWaiters();
    // A failed start has nothing to close; who asked for it was told.
    await engine?.then(
      (runtime) => runtime.close(),
      () => undefined,
    );
    this.endLive(() => undefined);
  }

  private async openEngine(listenPort: number): Promise<SlotRuntimePort> {
    const { slotIndex, name } = this.options;
    const epoch = ++this.epoch;
    const runtime = await this.deps.host.open({
      slotIndex,
      name,
      jobId: this.jobId,
      listenPort,
      events: this.eventsOf(epoch),
    });
    if (epoch === this.epoch) this.runtime = runtime;
    return runtime;
  }

  private async submitNow(deployment: SlotDeployment, admit: () => void): Promise<void> {
    const { ledger } = this.deps;
    this.assertOpen();
    const newest = this.newerThan(deployment);
    if (newest !== undefined)
      throw new MillraceError('CONFLICT', `deployment ${deployment.deployment} is older than ${newest} in this slot`);
    await this.endReplaced(deployment);
    const runtime = await this.currentEngine();
    admit();
    this.assertOpen();
    const accepted = ledger.accept(deployment, this.options.slotIndex);
    this.floor = floorOf(deployment);
    ledger.forgetReplaced(this.jobId, this.floor);
    for (const report of accepted) this.deps.events.attemptChanged(report);
    const epoch = this.epoch;
    const early = accepted.filter(({ attemptId }) => this.cancelledEarly.delete(attemptId));
    const started = runtime.submit(deployment);
    if (early.length > 0) this.cancel(early.map(({ attemptId }) => attemptId));
    this.deps.background.run('submit tasks', async () => {
      const error = await started.then(
        () => undefined,
        (thrown: unknown) => toErrorInfo(thrown),
      );
      // A dead engine's attempts were ended with it.
      if (epoch !== this.epoch) return;
      const attemptIds = deployment.tasks.map(({ attemptId }) => attemptId);
      if (error !== undefined) for (const attemptId of attemptIds) this.end(attemptId, 'FAILED', error);
      // A cancellation that overtook the submission found nothing to cancel.
      const cancelled = attemptIds.filter((attemptId) => this.cancelTimers.has(attemptId));
      if (cancelled.length > 0) runtime.cancel(cancelled);
    });
  }

  /** The engine of now, or its replacement when it is being replaced. */
  private async currentEngine(): Promise<SlotRuntimePort> {
    for (;;) {
      const { engine } = this;
      if (engine === undefined) throw new MillraceError('NOT_FOUND', `${this.options.name} has no engine`);
      const runtime = await engine;
      if (engine === this.engine) return runtime;
    }
  }

  /** The deployment that has made this one void: one of the same subtasks, or of the whole job. */
  private newerThan({ deployment, tasks }: SlotDeployment): DeploymentId | undefined {
    if (this.floor !== undefined && compareDeployments(deployment, this.floor) < 0) return this.floor;
    const subtasks = new Set(tasks.map(subtaskOf));
    return this.deps.ledger
      .allIn(this.options.slotIndex, this.jobId)
      .find((report) => subtasks.has(subtaskOf(report)) && compareDeployments(report.deployment, deployment) > 0)
      ?.deployment;
  }

  /** Ends what these tasks take the place of (S2). Other regions of the job go on beside them. */
  private async endReplaced(deployment: SlotDeployment): Promise<void> {
    const subtasks = new Set(deployment.tasks.map(subtaskOf));
    const floor = floorOf(deployment);
    const replaced = () =>
      this.deps.ledger
        .liveIn(this.options.slotIndex)
        .filter(
          (report) =>
            compareDeployments(report.deployment, floor) < 0 ||
            (subtasks.has(subtaskOf(report)) && compareDeployments(report.deployment, deployment.deployment) < 0),
        )
        .map((report) => report.attemptId);
    this.cancel(replaced());
    while (replaced().length > 0) {
      this.assertOpen();
      await new Promise<void>((resolve) => this.endWaiters.add(resolve));
    }
  }

  private eventsOf(epoch: number): SlotRuntimeEvents {
    const { events } = this.deps;
    const current = () => epoch === this.epoch;
    return {
      taskState: (report) => {
        if (current()) this.record(report);
      },
      checkpointAck: (ack) => {
        if (current()) events.checkpointAck(ack);
      },
      checkpointDecline: (decline) => {
        if (current()) events.checkpointDecline(decline);
      },
      crashed: (_jobId, error) => {
        if (current()) this.replaceEngine(error, () => toErrorInfo(error));
      },
    };
  }

  private record(report: AttemptReport): void {
    // User code runs where this comes from. One report that does not fit would make every heartbeat unfit.
    const checked = attemptReportSchema.safeParse(report);
    if (!checked.success) {
      const error = new MillraceError('INTERNAL', `the slot sent a report that is not valid: ${checked.error.message}`);
      this.deps.log.error({ slot: this.options.name, err: error }, 'invalid report');
      this.end(report.attemptId, 'FAILED', toErrorInfo(error));
      this.runtime?.cancel([report.attemptId]);
      return;
    }
    const failure = this.failures.get(report.attemptId);
    const shown: AttemptReport =
      failure !== undefined && report.state === 'CANCELED' ? { ...report, state: 'FAILED', error: failure } : report;
    this.changed(this.deps.ledger.record(shown));
  }

  private end(attemptId: AttemptId, state: 'CANCELED' | 'FAILED', error?: ErrorInfo): void {
    this.changed(this.deps.ledger.end(attemptId, state, error));
  }

  private changed(report: AttemptReport | undefined): void {
    if (report === undefined) return;
    if (isTerminalExecutionState(report.state)) {
      this.cancelTimers.get(report.attemptId)?.cancel();
      this.cancelTimers.delete(report.attemptId);
      this.failures.delete(report.attemptId);
    }
    this.deps.events.attemptChanged(report);
    this.wakeWaiters();
  }

  private wakeWaiters(): void {
    const waiters = [...this.endWaiters];
    this.endWaiters.clear();
    for (const wake of waiters) wake();
  }

  private cancellationTimedOut(attemptId: AttemptId): void {
    if (this.closed || this.replacing || !this.deps.ledger.isLive(attemptId)) return;
    const { name, cancellationTimeoutMs } = this.options;
    const error = new MillraceError(
      'USER_CODE',
      `${name} was ended: a task did not react to its cancellation within ${cancellationTimeoutMs} ms`,
      { hint: 'User code must not block; see task.cancellation.timeout.' },
    );
    this.replaceEngine(error, () => toErrorInfo(error));
  }

  /**
   * Ends the engine and opens another on the same port, because the job's other slots know the address.
   * Attempts that were being cancelled are CANCELED, others FAILED with `failureOf`.
   */
  private replaceEngine(reason: Error, failureOf: () => ErrorInfo): void {
    if (this.closed || this.replacing) return;
    this.replacing = true;
    this.deps.log.warn({ slot: this.options.name, jobId: this.jobId, err: reason }, 'slot engine ended, replacing it');
    const old = this.engine;
    this.runtime = undefined;
    this.epoch++;
    const replacement = this.replace(old, failureOf).finally(() => {
      this.replacing = false;
    });
    this.engine = replacement;
    this.deps.background.run('replace slot engine', async () => {
      try {
        await replacement;
      } catch (error) {
        if (!this.closed) this.deps.events.unusable(this.options.slotIndex, asError(error));
      }
    });
  }

  private async replace(
    old: Promise<SlotRuntimePort> | undefined,
    failureOf: () => ErrorInfo,
  ): Promise<SlotRuntimePort> {
    const port = await old?.then(
      async (runtime) => {
        await runtime.close();
        return runtime.dataAddress.port;
      },
      () => undefined, // It never started; there is nothing to end.
    );
    this.endLive(
      (attemptId) => this.failures.get(attemptId) ?? (this.cancelTimers.has(attemptId) ? undefined : failureOf()),
    );
    const { clock, random, log } = this.deps;
    for (let attempt = 0; ; attempt++) {
      this.assertOpen();
      try {
        return await this.openEngine(port ?? this.options.listenPort);
      } catch (error) {
        if (attempt + 1 >= REPLACE_TRIES || this.closed) throw error;
        log.warn({ slot: this.options.name, err: asError(error) }, 'slot engine not replaced yet');
        await sleep(clock, backoffMs(QUICK_BACKOFF, attempt, random), this.stopped.signal);
      }
    }
  }

  /** S1: only called when the engine is gone. */
  private endLive(failureOf: (attemptId: AttemptId) => ErrorInfo | undefined): void {
    for (const { attemptId } of this.deps.ledger.liveIn(this.options.slotIndex)) {
      const failure = failureOf(attemptId);
      if (failure === undefined) this.end(attemptId, 'CANCELED');
      else this.end(attemptId, 'FAILED', failure);
    }
    for (const timer of this.cancelTimers.values()) timer.cancel();
    this.cancelTimers.clear();
  }

  private assertOpen(): void {
    if (this.closed) throw new MillraceError('NOT_FOUND', `${this.options.name} was given back`);
  }
}

function floorOf({ deployment, oldestLive = deployment }: SlotDeployment): DeploymentId {
  return oldestLive;
}
