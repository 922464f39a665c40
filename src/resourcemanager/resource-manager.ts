import type { WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { Slot, SlotProvider, SlotRequest, WorkerEvent } from '../contracts/slots.ts';
import type { TaskManagerView } from '../contracts/views.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import { type AllocationId, type JobId, newAllocationId, type TaskManagerId } from '../kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { backoffMs, QUICK_BACKOFF } from '../kernel/retry.ts';
import { sleep } from '../kernel/clock.ts';
import type { Random } from '../kernel/random.ts';
import { type FreeSlot, matchSlots, type SlotGrant } from './slot-matching.ts';
import { slotsOf, type Worker } from './worker.ts';
import { type WorkerConnection, WorkerMonitor } from './worker-monitor.ts';

export interface ResourceManagerDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Opens the worker's gateway, bound to this term's token. */
  readonly connect: (registration: WorkerRegistration) => WorkerConnection;
  /** A worker has seen a newer leader: this replica no longer leads. */
  readonly onFenced: (reason: string) => void;
}

export interface ResourceManagerOptions {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly spreadOut: boolean;
  /** From when on a job that does not fit holds back the ones behind it. */
  readonly reserveAfterMs: number;
}

interface Waiting {
  readonly id: number;
  readonly request: SlotRequest;
  readonly sinceMs: number;
  readonly resolve: (slots: readonly Slot[]) => void;
  readonly reject: (error: Error) => void;
  readonly end: () => void;
  toldMissing: number | undefined;
}

/**
 * One term's knowledge of workers and slots. Made when leadership is granted, closed when it ends;
 * nothing is stored, because workers tell it again to the next leader.
 *
 * Invariants:
 *   R1. A slot is given to one job at a time, and again only after its worker has answered that it is free.
 *   R2. A job gets all its slots or none.
 *   R3. A worker that was lost is never spoken to again under the same registration.
 */
export class ResourceManager implements SlotProvider, Closeable {
  private readonly workers = new Map<TaskManagerId, Worker>();
  private readonly waiting = new Map<number, Waiting>();
  private readonly listeners = new Set<(event: WorkerEvent) => void>();
  private readonly background: BackgroundTasks;
  private readonly closed = new AbortController();
  private nextRequest = 1;
  private suspended = false;
  private matching = false;

  constructor(
    private readonly deps: ResourceManagerDeps,
    private readonly options: ResourceManagerOptions,
  ) {
    this.background = new BackgroundTasks(deps.log);
  }

  registerTaskManager(registration: WorkerRegistration): { heartbeatIntervalMs: number; heartbeatTimeoutMs: number } {
    this.mustBeOpen();
    const id = registration.taskManagerId;
    for (const worker of this.workers.values()) {
      const sameId = worker.registration.taskManagerId === id;
      const sameAddress = worker.registration.rpcAddress === registration.rpcAddress;
      if (sameId && sameAddress && worker.registration.pid === registration.pid)
        return this.refresh(worker, registration);
      if (sameId || sameAddress) this.lose(worker, 'another process registered in its place');
    }
    this.add(registration);
    return this.options;
  }

  disconnectTaskManager(id: TaskManagerId, reason: string): void {
    const worker = this.workers.get(id);
    if (worker !== undefined) this.lose(worker, `it said goodbye: ${reason}`);
  }

  requestSlots(request: SlotRequest): Promise<readonly Slot[]> {
    this.mustBeOpen();
    return new Promise((resolve, reject) => {
      const id = this.nextRequest++;
      const timer: Timer = this.deps.clock.schedule(request.timeoutMs, () => this.timeOut(id));
      const aborted = () =>
        this.settle(id, (one) => one.reject(new MillraceError('CLOSED', 'the request was withdrawn')));
      const end = () => {
        timer.cancel();
        request.signal.removeEventListener('abort', aborted);
      };
      const sinceMs = this.deps.clock.nowMs();
      this.waiting.set(id, { id, request, sinceMs, resolve, reject, end, toldMissing: undefined });
      request.signal.addEventListener('abort', aborted);
      if (request.signal.aborted) return aborted();
      this.match();
    });
  }

  async releaseSlots(jobId: JobId, allocationIds: readonly AllocationId[], reason: string): Promise<void> {
    const wanted = new Set(allocationIds);
    const freed: Promise<void>[] = [];
    for (const worker of this.workers.values()) {
      for (const [index, slot] of worker.slots.entries()) {
        if (slot.kind === 'free' || slot.jobId !== jobId || !wanted.has(slot.allocationId)) continue;
        if (slot.kind === 'taken' || slot.kind === 'found') freed.push(this.free(worker, index, reason));
      }
    }
    await Promise.all(freed);
  }

  async releaseJob(jobId: JobId): Promise<void> {
    const held = [...this.workers.values()].flatMap((worker) =>
      worker.slots.flatMap((slot) => (slot.kind !== 'free' && slot.jobId === jobId ? [slot.allocationId] : [])),
    );
    await this.releaseSlots(jobId, held, 'the job is over');
    await Promise.all(
      [...this.workers.values()].map((worker) => this.insist(worker, () => worker.connection.releaseJob({ jobId }))),
    );
  }

  subscribe(listener: (event: WorkerEvent) => void): () => void {
    this.listeners.add(listener);
    // A JobMaster that starts late learns of those who are here already.
    for (const worker of this.workers.values()) {
      listener({ kind: 'registered', taskManagerId: worker.registration.taskManagerId, report: worker.lastReport });
    }
    return () => void this.listeners.delete(listener);
  }

  /** No commands while leadership is in doubt; what happens is remembered. */
  suspend(): void {
    this.suspended = true;
    for (const worker of this.workers.values()) worker.monitor.suspend();
  }

  resume(): void {
    this.suspended = false;
    for (const worker of this.workers.values()) worker.monitor.resume();
    this.match();
  }

  listTaskManagers(): readonly TaskManagerView[] {
    return [...this.workers.values()].map((worker) => ({
      id: worker.registration.taskManagerId,
      rpcAddress: worker.registration.rpcAddress,
      dataHost: worker.registration.dataHost,
      pid: worker.registration.pid,
      slotsTotal: worker.slots.length,
      slotsFree: worker.slots.filter((slot) => slot.kind === 'free').length,
      lastHeartbeatMs: worker.lastHeartbeatWallMs,
      hardware: { ...worker.registration.hardware, freeMemoryBytes: worker.lastReport.freeMemoryBytes },
      allocations: worker.slots.flatMap((slot, slotIndex) =>
        slot.kind === 'free' ? [] : [{ slotIndex, jobId: slot.jobId }],
      ),
    }));
  }

  async close(): Promise<void> {
    if (this.closed.signal.aborted) return;
    this.closed.abort();
    for (const id of [...this.waiting.keys()]) {
      this.settle(id, (one) => one.reject(new MillraceError('CLOSED', 'this master no longer leads')));
    }
    this.listeners.clear();
    for (const worker of this.workers.values()) worker.monitor.stop();
    const connections = [...this.workers.values()].map((worker) => worker.connection);
    this.workers.clear();
    await Promise.all(connections.map((connection) => connection.close()));
    await this.background.drain();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private add(registration: WorkerRegistration): void {
    const id = registration.taskManagerId;
    const connection = this.deps.connect(registration);
    const worker: Worker = {
      registration,
      connection,
      slots: slotsOf(registration.slots, registration.report.slots),
      lastReport: registration.report,
      lastHeartbeatWallMs: this.deps.clock.wallMs(),
      monitor: new WorkerMonitor(
        {
          clock: this.deps.clock,
          log: this.deps.log.child({ taskManagerId: id }),
          events: {
            reported: (report) => {
              worker.lastReport = report;
              worker.lastHeartbeatWallMs = this.deps.clock.wallMs();
              this.emit({ kind: 'reported', taskManagerId: id, report });
            },
            lost: (reason) => this.lose(worker, reason),
            fenced: this.deps.onFenced,
          },
        },
        connection,
        this.options,
      ),
    };
    if (this.suspended) worker.monitor.suspend();
    this.workers.set(id, worker);
    this.background.run(`monitor ${id}`, () => worker.monitor.finished);
    this.deps.log.info(
      { taskManagerId: id, rpcAddress: registration.rpcAddress, slots: registration.slots },
      'taskmanager registered',
    );
    this.emit({ kind: 'registered', taskManagerId: id, report: registration.report });
    // Whatever earlier terms left in its slots is ended: jobs are redeployed from their checkpoints.
    for (const [index, slot] of worker.slots.entries()) {
      if (slot.kind === 'found')
        this.background.run('free a found slot', () => this.free(worker, index, 'left over from an earlier leader'));
    }
    this.match();
  }

  /** The same process again, after it had lost sight of us: its slots are as we know them. */
  private refresh(worker: Worker, registration: WorkerRegistration): typeof this.options {
    worker.monitor.heardFrom();
    worker.lastReport = registration.report;
    worker.lastHeartbeatWallMs = this.deps.clock.wallMs();
    this.emit({ kind: 'reported', taskManagerId: registration.taskManagerId, report: registration.report });
    return this.options;
  }

  private lose(worker: Worker, reason: string): void {
    const id = worker.registration.taskManagerId;
    if (this.workers.get(id) !== worker) return;
    this.workers.delete(id);
    worker.monitor.stop();
    this.deps.log.warn({ taskManagerId: id, reason }, 'taskmanager lost');
    this.background.run(`close connection to ${id}`, () => worker.connection.close());
    this.emit({ kind: 'lost', taskManagerId: id, reason });
    this.tellWaiting();
  }

  private emit(event: WorkerEvent): void {
    for (const listener of [...this.listeners]) listener(event);
  }

  /** Serves who can be served, once per turn of the event loop however often it is asked for. */
  private match(): void {
    if (this.matching) return;
    this.matching = true;
    this.background.run('match slots', async () => {
      this.matching = false;
      if (this.suspended || this.closed.signal.aborted) return;
      const nowMs = this.deps.clock.nowMs();
      const waiting = [...this.waiting.values()].map(({ id, request, sinceMs }) => ({
        requestId: id,
        jobId: request.jobId,
        count: request.count,
        priority: request.priority,
        waitedMs: nowMs - sinceMs,
      }));
      const usedByWorker = new Map(
        [...this.workers].map(([id, { slots }]) => [id, slots.filter((slot) => slot.kind !== 'free').length] as const),
      );
      const { spreadOut, reserveAfterMs } = this.options;
      for (const grant of matchSlots(waiting, this.freeSlots(), { spreadOut, reserveAfterMs, usedByWorker })) {
        this.background.run('allocate slots', () => this.allocate(grant));
      }
      this.tellWaiting();
    });
  }

  private freeSlots(): FreeSlot[] {
    return [...this.workers].flatMap(([taskManagerId, { slots }]) =>
      slots.flatMap((slot, slotIndex) => (slot.kind === 'free' ? [{ taskManagerId, slotIndex }] : [])),
    );
  }

  /** Takes the granted slots on their workers; if one refuses, the others are given back and the job waits on. */
  private async allocate(grant: SlotGrant): Promise<void> {
    const waiting = this.waiting.get(grant.requestId);
    if (waiting === undefined) return;
    this.waiting.delete(grant.requestId);
    const { jobId } = waiting.request;
    const taken = await Promise.all(grant.slots.map((slot) => this.take(slot, jobId)));
    const slots = taken.filter((slot) => slot !== undefined);
    const still = !waiting.request.signal.aborted && !this.closed.signal.aborted;
    // A worker may have died between its answer and the last one.
    const alive = slots.every((slot) => this.holds(slot));
    if (still && alive && slots.length === grant.slots.length) {
      waiting.end();
      waiting.resolve(slots);
      return;
    }
    const returned = this.releaseSlots(
      jobId,
      slots.map((slot) => slot.allocationId),
      'not all slots could be had',
    );
    if (!still) {
      waiting.end();
      waiting.reject(new MillraceError('CLOSED', 'the request was withdrawn'));
    } else {
      this.waiting.set(waiting.id, waiting);
      // Its timer found nobody waiting if it fired while the workers were asked.
      if (this.deps.clock.nowMs() - waiting.sinceMs >= waiting.request.timeoutMs) this.timeOut(waiting.id);
    }
    await returned;
    this.match();
  }

  private async take(free: FreeSlot, jobId: JobId): Promise<Slot | undefined> {
    const worker = this.workers.get(free.taskManagerId);
    if (worker === undefined || worker.slots[free.slotIndex]?.kind !== 'free') return undefined;
    const allocationId = newAllocationId(this.deps.random);
    worker.slots[free.slotIndex] = { kind: 'taking', allocationId, jobId };
    try {
      const { slotIndex } = free;
      const { dataAddress } = await worker.connection.allocateSlot({ slotIndex, allocationId, jobId });
      worker.slots[slotIndex] = { kind: 'taken', allocationId, jobId };
      return {
        allocationId,
        taskManagerId: free.taskManagerId,
        slotIndex,
        host: worker.registration.dataHost,
        dataAddress,
        gateway: worker.connection,
      };
    } catch (error) {
      if (isMillraceError(error, 'FENCED')) this.deps.onFenced(error.message);
      this.deps.log.warn({ err: asError(error), ...free, jobId }, 'slot could not be allocated');
      // It may have been allocated all the same: only its worker's word makes it free again.
      worker.slots[free.slotIndex] = { kind: 'taken', allocationId, jobId };
      this.background.run('free a doubtful slot', () => this.free(worker, free.slotIndex, 'the allocation failed'));
      return undefined;
    }
  }

  private holds(slot: Slot): boolean {
    const state = this.workers.get(slot.taskManagerId)?.slots[slot.slotIndex];
    return state !== undefined && state.kind === 'taken' && state.allocationId === slot.allocationId;
  }

  /** Resolves when the worker has answered that the slot is free, or is lost. */
  private async free(worker: Worker, index: number, reason: string): Promise<void> {
    const slot = worker.slots[index];
    if (slot === undefined || slot.kind === 'free' || slot.kind === 'freeing') return;
    const { allocationId, jobId } = slot;
    worker.slots[index] = { kind: 'freeing', allocationId, jobId };
    const done = await this.insist(worker, () => worker.connection.freeSlot({ allocationId, reason }));
    if (!done) return;
    worker.slots[index] = { kind: 'free' };
    this.match();
  }

  /** Repeats an idempotent command until the worker has taken it. False when the worker or this term is gone. */
  private async insist(worker: Worker, command: () => Promise<unknown>): Promise<boolean> {
    for (let attempt = 0; ; attempt++) {
      if (this.closed.signal.aborted || this.workers.get(worker.registration.taskManagerId) !== worker) return false;
      try {
        if (!this.suspended) {
          await command();
          return true;
        }
      } catch (error) {
        if (isMillraceError(error, 'FENCED')) {
          this.deps.onFenced(error.message);
          return false;
        }
        this.deps.log.debug(
          { err: asError(error), taskManagerId: worker.registration.taskManagerId },
          'command not taken yet',
        );
      }
      await sleep(this.deps.clock, backoffMs(QUICK_BACKOFF, attempt, this.deps.random), this.closed.signal);
    }
  }

  private tellWaiting(): void {
    const free = this.freeSlots().length;
    const total = [...this.workers.values()].reduce((sum, worker) => sum + worker.slots.length, 0);
    for (const one of this.waiting.values()) {
      // A job that waits although enough slots are free waits for those before it.
      const missing = Math.max(0, one.request.count - free);
      if (missing === one.toldMissing) continue;
      one.toldMissing = missing;
      one.request.onWaiting(missing, total);
    }
  }

  private timeOut(id: number): void {
    const free = this.freeSlots().length;
    const total = [...this.workers.values()].reduce((sum, worker) => sum + worker.slots.length, 0);
    this.settle(id, ({ request, reject }) =>
      reject(
        new MillraceError(
          'NO_RESOURCES',
          `the job needs ${request.count} slots; the cluster has ${total}, of which ${free} were free, and not enough became free within ${request.timeoutMs} ms`,
          {
            hint: 'Start more taskmanagers, give them more slots (taskmanager.numberOfTaskSlots), or lower the parallelism.',
          },
        ),
      ),
    );
  }

  private settle(id: number, how: (waiting: Waiting) => void): void {
    const waiting = this.waiting.get(id);
    if (waiting === undefined) return;
    this.waiting.delete(id);
    waiting.end();
    how(waiting);
  }

  private mustBeOpen(): void {
    if (this.closed.signal.aborted) throw new MillraceError('NOT_LEADER', 'this master no longer leads');
  }
}
