import type { JobManagerHandler, WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { Slot, SlotProvider, SlotRequest, WorkerEvent } from '../contracts/slots.ts';
import type { TaskManagerView } from '../contracts/views.ts';
import { type Clock, every, type Timer } from '../kernel/clock.ts';
import { asError, FencedError, InvalidArgumentError, MillraceError, NotLeaderError } from '../kernel/errors.ts';
import {
  type AllocationId,
  type FencingToken,
  type JobId,
  newAllocationId,
  type TaskManagerId,
} from '../kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { HeartbeatMonitor } from './heartbeat-monitor.ts';
import { type FreeSlot, matchSlots, pickSlots } from './match-slots.ts';
import { type KnownWorker, KnownWorkers } from './known-workers.ts';
import { RegisteredWorker, type TaskManagerConnection } from './registered-worker.ts';
import { SlotWaiter, withdrawn } from './slot-waiter.ts';

export interface ResourceManagerDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Opens a gateway whose calls carry this leader's token. May throw `INVALID_ARGUMENT` for the address. */
  readonly connectTaskManager: (rpcAddress: string) => TaskManagerConnection;
  /** A worker has seen a newer leader: this one should find out whether it still leads. */
  readonly onFenced?: (error: Error) => void;
  /**
   * The workers that were there before this term. They are given a moment to register before slots are given out
   * and jobs decide what is missing. Undefined: nobody knows, so time decides.
   */
  readonly knownWorkers?: () => readonly KnownWorker[] | undefined;
  /** A worker is lost, known or registered: nobody need expect it any more. */
  readonly onWorkerGone?: (taskManagerId: TaskManagerId) => void;
  /** Whether a job's master is still to start here: what workers hold for the job is kept until it does. Default: no. */
  readonly awaitsMaster?: (jobId: JobId) => boolean;
}

export interface ResourceManagerOptions {
  /** The term of leadership that this ResourceManager lives for. */
  readonly token: FencingToken;
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  /** `cluster.evenly-spread-out-slots` */
  readonly spreadOut: boolean;
  /**
   * How long slots found to hold a former leader's allocations wait to be claimed by their job before
   * they are freed. Default 10 s.
   */
  readonly unclaimedGraceMs?: number;
  /** How long known workers are waited for. Default 2 s. */
  readonly knownWorkersGraceMs?: number;
  /** See {@link matchSlots}. Default 30 s. */
  readonly patienceMs?: number;
}

interface Worker {
  readonly worker: RegisteredWorker;
  readonly monitor: HeartbeatMonitor;
}

const RELEASED_JOBS_REMEMBERED = 1_000;

/**
 * Who has which slot, for one term of leadership. Takes in workers, watches them, and gives their slots
 * to jobs, all that a job asks for at once or none. Keeps nothing durable: the workers themselves say
 * after a failover what they hold.
 */
export class ResourceManager
  implements SlotProvider, Pick<JobManagerHandler, 'registerTaskManager' | 'disconnectTaskManager'>, Closeable
{
  private readonly workers = new Map<TaskManagerId, Worker>();
  private readonly waiters = new Set<SlotWaiter>();
  private readonly listeners = new Set<(event: WorkerEvent) => void>();
  private readonly releasedJobs = new Set<JobId>();
  private readonly resumed = new Set<() => void>();
  private readonly background: BackgroundTasks;
  private readonly sweeping: Timer;
  private readonly known: KnownWorkers | undefined;
  /** Workers that the store lists and that are not here, since when. */
  private absent = new Map<TaskManagerId, number>();
  private cooling: Timer | undefined;
  private suspended = false;
  private closed = false;
  private nextRequestId = 0;

  constructor(
    private readonly deps: ResourceManagerDeps,
    private readonly options: ResourceManagerOptions,
  ) {
    this.background = new BackgroundTasks(deps.log);
    this.sweeping = every(deps.clock, Math.max(10, this.graceMs / 4), () => this.sweep());
    this.known = this.expectKnownWorkers();
  }

  async registerTaskManager(
    registration: WorkerRegistration,
    token: FencingToken,
  ): Promise<{ heartbeatIntervalMs: number; heartbeatTimeoutMs: number }> {
    this.assertLeading(token);
    if (this.suspended) throw new NotLeaderError('this leader is suspended', { hint: 'Register again in a moment.' });
    assertConsistent(registration);
    const { taskManagerId, rpcAddress, pid, report } = registration;
    const known = this.workers.get(taskManagerId);
    if (
      known !== undefined &&
      known.worker.registration.rpcAddress === rpcAddress &&
      known.worker.registration.pid === pid
    ) {
      // It had lost sight of us, not we of it. Its report may be older than what was changed since; the
      // heartbeat that follows is not.
      known.worker.registration = registration;
      known.monitor.probe();
      this.emit({ kind: 'reported', taskManagerId, report });
    } else {
      this.takeIn(registration);
      this.emit({ kind: 'registered', taskManagerId, report });
    }
    this.forgetReleasedJobs(registration);
    this.schedule();
    const { heartbeatIntervalMs, heartbeatTimeoutMs } = this.options;
    return { heartbeatIntervalMs, heartbeatTimeoutMs };
  }

  async disconnectTaskManager(
    { taskManagerId, reason }: { taskManagerId: TaskManagerId; reason: string },
    token: FencingToken,
  ): Promise<Record<string, never>> {
    this.assertLeading(token);
    this.lose(taskManagerId, `it said goodbye: ${reason}`);
    return {};
  }

  requestSlots(request: SlotRequest): Promise<readonly Slot[]> {
    if (this.closed) return Promise.reject(new MillraceError('CLOSED', 'the resource manager is closed'));
    if (!Number.isSafeInteger(request.count) || request.count < 1)
      return Promise.reject(new InvalidArgumentError(`cannot ask for ${request.count} slots`));
    if (request.signal.aborted) return Promise.reject(withdrawn());
    const waiter = new SlotWaiter(this.deps.clock, this.nextRequestId++, request, {
      expired: () => this.noResources(request),
      settled: () => this.waiters.delete(waiter),
      suspended: () => this.suspended,
    });
    this.waiters.add(waiter);
    this.schedule();
    return waiter.promise;
  }

  claimSlots(jobId: JobId, allocationIds: readonly AllocationId[]): readonly Slot[] {
    if (this.closed) return [];
    return [...this.workers.values()].flatMap(({ worker }) => worker.claim(jobId, allocationIds));
  }

  async releaseSlots(jobId: JobId, allocationIds: readonly AllocationId[], reason: string): Promise<void> {
    if (this.closed) return;
    const freed: Promise<void>[] = [];
    for (const { worker } of this.workers.values())
      for (const allocationId of allocationIds)
        if (worker.holds(jobId, allocationId)) freed.push(worker.free(allocationId, reason));
    await Promise.all(freed);
    this.schedule();
  }

  async releaseJob(jobId: JobId): Promise<void> {
    if (this.closed) return;
    this.releasedJobs.add(jobId);
    const [oldest] = this.releasedJobs;
    if (this.releasedJobs.size > RELEASED_JOBS_REMEMBERED && oldest !== undefined) this.releasedJobs.delete(oldest);
    for (const waiter of this.waiters)
      if (waiter.request.jobId === jobId) waiter.reject(new MillraceError('CLOSED', 'the job is over'));
    await Promise.all([...this.workers.values()].map(({ worker }) => worker.releaseJob(jobId)));
    this.schedule();
  }

  /** The listener hears of the workers that are here already as if they registered now. */
  subscribe(listener: (event: WorkerEvent) => void): () => void {
    const entry = (event: WorkerEvent) => listener(event);
    this.listeners.add(entry);
    for (const [taskManagerId, { worker }] of this.workers)
      this.deliver(entry, { kind: 'registered', taskManagerId, report: worker.presentReport() });
    if (this.known?.settled === true) this.deliver(entry, { kind: 'settled' });
    return () => void this.listeners.delete(entry);
  }

  /** Leadership is in doubt: no decision and no command until `resume`; nothing is forgotten. */
  suspend(): void {
    this.suspended = true;
  }

  resume(): void {
    this.suspended = false;
    for (const wake of [...this.resumed]) wake();
    this.schedule();
    for (const waiter of [...this.waiters]) waiter.rejectIfExpired();
  }

  listTaskManagers(): TaskManagerView[] {
    return [...this.workers.values()].map(({ worker }) => worker.view());
  }

  totals(): { readonly taskManagers: number; readonly slotsTotal: number; readonly slotsFree: number } {
    const workers = [...this.workers.values()].map(({ worker }) => worker);
    return {
      taskManagers: workers.length,
      slotsTotal: workers.reduce((sum, worker) => sum + worker.slotCount, 0),
      slotsFree: workers.reduce((sum, worker) => sum + worker.freeCount(), 0),
    };
  }

  /** The term is over. Workers keep what they have: the next leader asks them. Idempotent. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.sweeping.cancel();
    this.known?.close();
    this.cooling?.cancel();
    for (const waiter of [...this.waiters])
      waiter.reject(new MillraceError('CLOSED', 'the resource manager was closed'));
    const workers = [...this.workers.values()];
    this.workers.clear();
    for (const { monitor } of workers) monitor.close();
    await Promise.all(workers.map(({ worker }) => worker.close()));
    for (const wake of [...this.resumed]) wake();
    await this.background.drain();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private get graceMs(): number {
    return this.options.unclaimedGraceMs ?? 10_000;
  }

  private assertLeading(token: FencingToken): void {
    if (this.closed) throw new NotLeaderError('this replica no longer leads');
    if (token < this.options.token)
      throw new FencedError(`the call means leader ${token}; ${this.options.token} leads`);
    if (token > this.options.token)
      throw new NotLeaderError(`the call means leader ${token}; this is ${this.options.token}`);
  }

  private takeIn(registration: WorkerRegistration): void {
    const { taskManagerId, rpcAddress, slots, pid } = registration;
    const { clock, random } = this.deps;
    const connection = this.deps.connectTaskManager(rpcAddress);
    if (this.workers.has(taskManagerId)) this.lose(taskManagerId, `it restarted as process ${pid}`);
    for (const [id, { worker }] of this.workers)
      if (worker.registration.rpcAddress === rpcAddress) this.lose(id, `${taskManagerId} has taken its address`);
    const log = this.deps.log.child({ taskManagerId });
    const fenced = (error: Error) => this.onFenced(taskManagerId, error);
    const mayCommand = (signal: AbortSignal) => this.untilResumed(signal);
    const worker = new RegisteredWorker({ clock, random, log, connection, mayCommand, fenced }, registration);
    const monitor = new HeartbeatMonitor(
      {
        ...{ clock, log, fenced },
        ask: () => connection.heartbeat({}),
        suspended: () => this.suspended,
        mark: () => worker.mark(),
        answered: (report, askedAt) => {
          if (report.taskManagerId !== taskManagerId) {
            this.lose(taskManagerId, `${report.taskManagerId} answers at its address`);
            return;
          }
          worker.heard(report, askedAt);
          this.freeSlotsOfEndedJobs(worker);
          this.emit({ kind: 'reported', taskManagerId, report });
          // Not before: only a worker that was reached gets new tasks.
          this.known?.seen(taskManagerId);
          this.schedule();
        },
        dead: (reason) => this.lose(taskManagerId, reason),
      },
      { intervalMs: this.options.heartbeatIntervalMs, timeoutMs: this.options.heartbeatTimeoutMs },
    );
    connection.onConnectionLost(() => monitor.probe());
    this.workers.set(taskManagerId, { worker, monitor });
    this.deps.log.info({ taskManagerId, rpcAddress, slots, pid }, 'worker registered');
    monitor.probe();
  }

  private lose(taskManagerId: TaskManagerId, reason: string): void {
    const entry = this.workers.get(taskManagerId);
    if (entry === undefined) return;
    this.workers.delete(taskManagerId);
    entry.monitor.close();
    this.background.run('close connection to lost worker', () => entry.worker.close());
    this.deps.log.warn({ taskManagerId, reason }, 'worker lost');
    this.emit({ kind: 'lost', taskManagerId, reason });
    this.known?.seen(taskManagerId);
    this.deps.onWorkerGone?.(taskManagerId);
    this.schedule();
  }

  private onFenced(taskManagerId: TaskManagerId, error: Error): void {
    this.deps.log.warn({ taskManagerId, token: this.options.token, err: error }, 'fenced by a worker');
    this.deps.onFenced?.(error);
  }

  private emit(event: WorkerEvent): void {
    for (const listener of [...this.listeners]) this.deliver(listener, event);
  }

  private deliver(listener: (event: WorkerEvent) => void, event: WorkerEvent): void {
    try {
      listener(event);
    } catch (error) {
      this.deps.log.error({ err: asError(error), event: event.kind }, 'worker listener failed');
    }
  }

  /** A worker that was away when its job ended is told now. */
  private forgetReleasedJobs({ taskManagerId, report }: WorkerRegistration): void {
    const jobs = new Set<JobId>([
      ...report.attempts.map(({ jobId }) => jobId),
      ...report.slots.flatMap(({ allocation }) => (allocation === undefined ? [] : [allocation.jobId])),
    ]);
    const entry = this.workers.get(taskManagerId);
    for (const jobId of jobs)
      if (entry !== undefined && this.releasedJobs.has(jobId))
        this.background.run('release ended job', async () => {
          await entry.worker.releaseJob(jobId);
          this.schedule();
        });
  }

  /** A command that was held up on its way may give a slot to a job that has ended meanwhile: nobody will claim it. */
  private freeSlotsOfEndedJobs(worker: RegisteredWorker): void {
    for (const { jobId, allocationId } of worker.unclaimed(0))
      if (this.releasedJobs.has(jobId)) this.freeInBackground(worker, allocationId, 'its job is over');
  }

  private untilResumed(signal: AbortSignal): Promise<void> {
    if (!this.suspended || signal.aborted || this.closed) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.resumed.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.resumed.add(wake);
      signal.addEventListener('abort', wake);
    });
  }

  private expectKnownWorkers(): KnownWorkers | undefined {
    const { clock, log, connectTaskManager, knownWorkers } = this.deps;
    if (knownWorkers === undefined) return undefined;
    const { heartbeatIntervalMs: intervalMs, heartbeatTimeoutMs: timeoutMs, knownWorkersGraceMs } = this.options;
    return new KnownWorkers(
      {
        ...{ clock, log, background: this.background, connect: connectTaskManager },
        suspended: () => this.suspended,
        fenced: (taskManagerId, error) => this.onFenced(taskManagerId, error),
        gone: this.deps.onWorkerGone,
        settled: () => this.onSettled(),
      },
      knownWorkers(),
      { intervalMs, timeoutMs, graceMs: knownWorkersGraceMs ?? 2_000 },
    );
  }

  private onSettled(): void {
    this.emit({ kind: 'settled' });
    // Not at once: the jobs that hear of it take over or give back what they found.
    queueMicrotask(() => this.schedule());
  }

  /**
   * Whoever was never met cannot be lost: it died before it registered, or nobody could say who is there when the
   * term began. Its key would stay for as long as its lease.
   */
  private forgetAbsent(): void {
    const listed = this.known?.settled === true ? this.deps.knownWorkers?.() : undefined;
    if (listed === undefined) return;
    const nowMs = this.deps.clock.nowMs();
    const before = this.absent;
    this.absent = new Map();
    for (const { taskManagerId } of listed) {
      if (this.workers.has(taskManagerId)) continue;
      const sinceMs = before.get(taskManagerId) ?? nowMs;
      if (nowMs - sinceMs < this.options.heartbeatTimeoutMs) this.absent.set(taskManagerId, sinceMs);
      else {
        this.deps.log.info({ taskManagerId }, 'a listed worker has not registered');
        this.deps.onWorkerGone?.(taskManagerId);
      }
    }
  }

  private sweep(): void {
    if (this.suspended) return;
    this.forgetAbsent();
    for (const { worker } of this.workers.values())
      for (const { jobId, allocationId } of worker.unclaimed(this.graceMs)) {
        // Its master has not started yet (its graph cannot be read): its tasks run on meanwhile.
        if (this.deps.awaitsMaster?.(jobId) === true) continue;
        this.deps.log.info({ taskManagerId: worker.id, jobId, allocationId }, 'unclaimed slot is freed');
        this.freeInBackground(worker, allocationId, 'no job of the present leader claims it');
      }
  }

  private freeInBackground(worker: RegisteredWorker, allocationId: AllocationId, reason: string): void {
    this.background.run('free slot', async () => {
      await worker.free(allocationId, reason);
      this.schedule();
    });
  }

  private freeSlots(): FreeSlot[] {
    return [...this.workers.values()].flatMap(({ worker, monitor }) => (monitor.responsive ? worker.freeSlots() : []));
  }

  private matching() {
    const slotsOfWorker = new Map([...this.workers].map(([id, { worker }]) => [id, worker.slotCount]));
    const { spreadOut, patienceMs = 30_000 } = this.options;
    return { nowMs: this.deps.clock.nowMs(), patienceMs, spreadOut, slotsOfWorker };
  }

  /** Grants what can be granted now. Called after everything that may have freed a slot or added a request. */
  private schedule(): void {
    if (this.suspended || this.closed || this.waiters.size === 0) return;
    // The first to register after a takeover must not get everything.
    if (this.known?.settled === false) {
      this.tellWaiting();
      return;
    }
    const waiting = [...this.waiters].filter((waiter) => !waiter.granting);
    const byId = new Map(waiting.map((waiter) => [waiter.id, waiter]));
    const matches = matchSlots(
      waiting.map((waiter) => waiter.forMatching()),
      this.freeSlots(),
      this.matching(),
    );
    for (const { request, slots } of matches) {
      const waiter = byId.get(request.id);
      if (waiter !== undefined) this.grant(waiter, slots);
    }
    this.tellWaiting();
    this.retryAfterCooling();
  }

  private tellWaiting(): void {
    const { slotsFree, slotsTotal } = this.totals();
    for (const waiter of [...this.waiters])
      if (!waiter.granting) waiter.tellWaiting(Math.max(0, waiter.request.count - slotsFree), slotsTotal);
  }

  private retryAfterCooling(): void {
    const times = [...this.workers.values()].flatMap(({ worker }) => worker.cooledMs() ?? []);
    this.cooling?.cancel();
    if (times.length > 0 && this.waiters.size > 0)
      this.cooling = this.deps.clock.schedule(Math.max(1, Math.min(...times) - this.deps.clock.nowMs()), () =>
        this.schedule(),
      );
  }

  private grant(waiter: SlotWaiter, slots: readonly FreeSlot[]): void {
    waiter.granting = true;
    const reserved = this.reserve(waiter, slots);
    this.background.run('allocate slots', async () => {
      await this.allocateAll(waiter, reserved);
      this.schedule();
    });
  }

  private reserve(waiter: SlotWaiter, slots: readonly FreeSlot[]): Reservation[] {
    return slots.flatMap(({ taskManagerId, slotIndex }) => {
      const worker = this.workers.get(taskManagerId)?.worker;
      if (worker === undefined) return [];
      const allocationId = newAllocationId(this.deps.random);
      worker.reserve(slotIndex, allocationId, waiter.request.jobId);
      return [{ worker, slotIndex, allocationId }];
    });
  }

  /** All of them, with other slots for those that fail; or none, and the request waits on in its old place. */
  private async allocateAll(waiter: SlotWaiter, first: readonly Reservation[]): Promise<void> {
    const { jobId, count } = waiter.request;
    const granted: { slot: Slot; worker: RegisteredWorker }[] = [];
    let reserved = first;
    while (reserved.length > 0) {
      await Promise.all(
        reserved.map(async ({ worker, slotIndex, allocationId }) => {
          try {
            granted.push({ slot: await worker.allocate(slotIndex, allocationId, jobId), worker });
          } catch (error) {
            this.deps.log.warn(
              { taskManagerId: worker.id, slotIndex, jobId, err: asError(error) },
              'slot not allocated',
            );
            // It may have taken effect: the worker is told to forget it before the slot is used again.
            this.freeInBackground(worker, allocationId, 'its allocation failed');
          }
        }),
      );
      const alive = granted.filter(({ worker }) => !worker.gone);
      granted.splice(0, granted.length, ...alive);
      if (waiter.settled || this.closed || this.suspended || granted.length === count) break;
      const more = pickSlots(count - granted.length, this.freeSlots(), this.matching());
      reserved = more === undefined ? [] : this.reserve(waiter, more);
    }
    if (granted.length === count && !waiter.settled && !this.closed) {
      waiter.resolve(granted.map(({ slot }) => slot));
      return;
    }
    if (!this.closed)
      for (const { slot, worker } of granted)
        this.freeInBackground(worker, slot.allocationId, 'the job did not get all the slots it needs');
    waiter.granting = false;
    waiter.rejectIfExpired();
  }

  private noResources({ jobId, count, timeoutMs }: SlotRequest): MillraceError {
    const { taskManagers, slotsTotal, slotsFree } = this.totals();
    return new MillraceError(
      'NO_RESOURCES',
      `job ${jobId} needs ${count} slots and did not get them within ${timeoutMs} ms: the cluster has ${slotsTotal} slots on ${taskManagers} task managers, ${slotsFree} of them free`,
      { hint: 'Start more task managers, raise taskmanager.numberOfTaskSlots, or lower the parallelism.' },
    );
  }
}

interface Reservation {
  readonly worker: RegisteredWorker;
  readonly slotIndex: number;
  readonly allocationId: AllocationId;
}

function assertConsistent({ taskManagerId, slots, report }: WorkerRegistration): void {
  const wrong = report.slots.find(({ slotIndex }) => slotIndex >= slots);
  if (wrong !== undefined)
    throw new InvalidArgumentError(`${taskManagerId} reports slot ${wrong.slotIndex} but has ${slots} slots`);
  if (report.taskManagerId !== taskManagerId)
    throw new InvalidArgumentError(`${taskManagerId} registers with a report of ${report.taskManagerId}`);
}
