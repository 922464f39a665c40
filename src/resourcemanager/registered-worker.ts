import type { GatewayConnection } from '../contracts/gateway.ts';
import type { WorkerRegistration } from '../contracts/job-manager-gateway.ts';
import type { Slot } from '../contracts/slots.ts';
import type { taskManagerGatewaySpec, WorkerReport } from '../contracts/task-manager-gateway.ts';
import type { TaskManagerView } from '../contracts/views.ts';
import { assert } from '../kernel/assert.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import type { AllocationId, JobId, TaskManagerId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../kernel/retry.ts';
import type { FreeSlot } from './match-slots.ts';
import { reconcileSlot, type SlotRecord } from './slot-records.ts';

export type TaskManagerConnection = GatewayConnection<typeof taskManagerGatewaySpec>;

export interface RegisteredWorkerDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly connection: TaskManagerConnection;
  /** Resolves when commands may be sent (not suspended), or the worker is closed. */
  readonly mayCommand: (signal: AbortSignal) => Promise<void>;
  readonly fenced: (error: Error) => void;
}

/** How long a slot whose allocation failed is left alone. */
const COOL_DOWN_MS = 1_000;

/** One worker as the leader knows it: its slots, and the commands that change them. */
export class RegisteredWorker {
  private records: SlotRecord[];
  private changes = 0;
  private readonly coolUntilMs = new Map<number, number>();
  private readonly stopped = new AbortController();
  private lastHeartbeatWallMs: number;
  private lastReport: WorkerReport;

  constructor(
    private readonly deps: RegisteredWorkerDeps,
    public registration: WorkerRegistration,
  ) {
    this.lastHeartbeatWallMs = deps.clock.wallMs();
    this.lastReport = registration.report;
    this.records = Array.from({ length: registration.slots }, () => ({ kind: 'free', changed: 0 }));
    this.applyReport(registration.report, 0);
  }

  get id(): TaskManagerId {
    return this.registration.taskManagerId;
  }

  get slotCount(): number {
    return this.records.length;
  }

  get gateway(): TaskManagerConnection {
    return this.deps.connection;
  }

  get gone(): boolean {
    return this.stopped.signal.aborted;
  }

  /** The number of the last change: what a question asked now will know about. */
  mark(): number {
    return this.changes;
  }

  applyReport(report: WorkerReport, askedAt: number): void {
    const time = { askedAt, change: ++this.changes, nowMs: this.deps.clock.nowMs() };
    const said = new Map(report.slots.map((slot) => [slot.slotIndex, slot]));
    this.records = this.records.map((record, slotIndex) => {
      const next = reconcileSlot(record, said.get(slotIndex), time);
      if (record.kind === 'allocated' && next !== record)
        this.deps.log.warn(
          { taskManagerId: this.id, slotIndex, allocationId: record.allocationId, jobId: record.jobId, to: next.kind },
          'the worker no longer has this allocation',
        );
      return next;
    });
  }

  /** The newest word on attempts, with slots as they are by now. */
  presentReport(): WorkerReport {
    return {
      ...this.lastReport,
      slots: this.records.map((record, slotIndex) =>
        record.kind === 'free'
          ? { slotIndex }
          : { slotIndex, allocation: { allocationId: record.allocationId, jobId: record.jobId } },
      ),
    };
  }

  heard(report: WorkerReport, askedAt: number): void {
    this.lastHeartbeatWallMs = this.deps.clock.wallMs();
    this.lastReport = report;
    this.registration = {
      ...this.registration,
      hardware: { ...this.registration.hardware, freeMemoryBytes: report.freeMemoryBytes },
    };
    this.applyReport(report, askedAt);
  }

  /** Slots that can be given out now. */
  freeSlots(): FreeSlot[] {
    const nowMs = this.deps.clock.nowMs();
    const free: FreeSlot[] = [];
    for (const [slotIndex, record] of this.records.entries()) {
      if ((this.coolUntilMs.get(slotIndex) ?? 0) > nowMs) continue;
      if (record.kind === 'free') free.push({ taskManagerId: this.id, slotIndex });
    }
    return free;
  }

  /** Slots in nobody's use, cooling or not. */
  freeCount(): number {
    return this.records.filter((record) => record.kind === 'free').length;
  }

  /** When the first cooling slot may be tried again. */
  cooledMs(): number | undefined {
    const nowMs = this.deps.clock.nowMs();
    const times = [...this.coolUntilMs.values()].filter((untilMs) => untilMs > nowMs);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Reserves a slot at once, so that no other request gets it (R1). */
  reserve(slotIndex: number, allocationId: AllocationId, jobId: JobId): void {
    assert(this.records[slotIndex]?.kind === 'free', 'R1: only a free slot is given out');
    this.set(slotIndex, { kind: 'allocating', allocationId, jobId });
  }

  /** Asks the worker for a reserved slot. When that fails the slot is given back and left alone for a while. */
  async allocate(slotIndex: number, allocationId: AllocationId, jobId: JobId): Promise<Slot> {
    const { clock, connection } = this.deps;
    try {
      const { dataAddress } = await connection.allocateSlot({ slotIndex, allocationId, jobId });
      if (this.gone) throw new MillraceError('CLOSED', `${this.id} was lost`);
      const record = this.records[slotIndex];
      if (record?.kind !== 'allocating' || record.allocationId !== allocationId)
        throw new MillraceError('CLOSED', 'the slot was given back while it was being allocated');
      this.set(slotIndex, { kind: 'allocated', allocationId, jobId, dataAddress });
      const { taskManagerId, dataHost: host } = this.registration;
      return { allocationId, taskManagerId, slotIndex, host, dataAddress, gateway: connection };
    } catch (error) {
      if (isMillraceError(error, 'FENCED')) this.deps.fenced(error);
      this.coolUntilMs.set(slotIndex, clock.nowMs() + COOL_DOWN_MS);
      throw error;
    }
  }

  /** Takes over what an earlier term left with the job, under its own id (R2: the worker has said that it is so). */
  claim(jobId: JobId, allocationIds: readonly AllocationId[]): Slot[] {
    if (this.gone) return [];
    const { taskManagerId, dataHost: host } = this.registration;
    return this.records.flatMap((record, slotIndex) => {
      if (record.kind !== 'held' && record.kind !== 'allocated') return [];
      const { allocationId, dataAddress } = record;
      if (record.jobId !== jobId || !allocationIds.includes(allocationId) || dataAddress === undefined) return [];
      if (record.kind === 'held') this.set(slotIndex, { kind: 'allocated', allocationId, jobId, dataAddress });
      return [{ allocationId, taskManagerId, slotIndex, host, dataAddress, gateway: this.gateway }];
    });
  }

  holds(jobId: JobId, allocationId: AllocationId): boolean {
    return this.records.some(
      (record) => record.kind !== 'free' && record.jobId === jobId && record.allocationId === allocationId,
    );
  }

  /** Held longer than `graceMs` and claimed by nobody. */
  unclaimed(graceMs: number): { jobId: JobId; allocationId: AllocationId }[] {
    const nowMs = this.deps.clock.nowMs();
    return this.records.flatMap((record) =>
      record.kind === 'held' && nowMs - record.sinceMs >= graceMs
        ? [{ jobId: record.jobId, allocationId: record.allocationId }]
        : [],
    );
  }

  /** Gives a slot back; repeated until the worker answers or is lost. Never rejects. */
  async free(allocationId: AllocationId, reason: string): Promise<void> {
    const slotIndex = this.records.findIndex(
      (record) => record.kind !== 'free' && record.allocationId === allocationId,
    );
    const record = this.records[slotIndex];
    if (record === undefined || record.kind === 'free' || record.kind === 'freeing') return;
    this.set(slotIndex, { kind: 'freeing', allocationId, jobId: record.jobId });
    const freed = await this.untilAnswered('free slot', () => this.gateway.freeSlot({ allocationId, reason }));
    if (freed) this.set(slotIndex, { kind: 'free' });
  }

  /** The job is over: its slots and whatever the worker keeps of it. Never rejects. */
  async releaseJob(jobId: JobId): Promise<void> {
    const slots = this.records.flatMap((record, slotIndex) =>
      record.kind !== 'free' && record.jobId === jobId ? [{ slotIndex, allocationId: record.allocationId }] : [],
    );
    for (const { slotIndex, allocationId } of slots) this.set(slotIndex, { kind: 'freeing', allocationId, jobId });
    const released = await this.untilAnswered('release job', () => this.gateway.releaseJob({ jobId }));
    if (!released) return;
    for (const { slotIndex, allocationId } of slots) {
      const record = this.records[slotIndex];
      if (record?.kind === 'freeing' && record.allocationId === allocationId) this.set(slotIndex, { kind: 'free' });
    }
  }

  /** Lost, or no longer ours to command: whatever is under way stops. */
  async close(): Promise<void> {
    this.stopped.abort();
    await this.deps.connection.close();
  }

  view(): TaskManagerView {
    const { taskManagerId, rpcAddress, dataHost, pid, hardware } = this.registration;
    return {
      ...{ id: taskManagerId, rpcAddress, dataHost, pid, hardware },
      slotsTotal: this.slotCount,
      slotsFree: this.freeCount(),
      lastHeartbeatMs: this.lastHeartbeatWallMs,
      allocations: this.records.flatMap((record, slotIndex) =>
        record.kind === 'free' ? [] : [{ slotIndex, jobId: record.jobId }],
      ),
    };
  }

  private set(slotIndex: number, record: Unnumbered<SlotRecord>): void {
    this.records[slotIndex] = { ...record, changed: ++this.changes } as SlotRecord;
  }

  private async untilAnswered(what: string, call: () => Promise<unknown>): Promise<boolean> {
    const { clock, random, log } = this.deps;
    const { signal } = this.stopped;
    for (let attempt = 0; ; attempt++) {
      await this.deps.mayCommand(signal);
      if (signal.aborted) return false;
      try {
        await call();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        if (isMillraceError(error, 'FENCED')) {
          this.deps.fenced(error);
          return false;
        }
        if (attempt % 20 === 0)
          log.warn(
            { taskManagerId: this.id, command: what, attempt, err: asError(error) },
            'command not answered, will be repeated',
          );
        await sleep(clock, backoffMs(QUICK_BACKOFF, Math.min(attempt, 10), random), signal);
      }
    }
  }
}

type Unnumbered<T> = T extends unknown ? Omit<T, 'changed'> : never;
