import type { AllocationId, JobId, TaskManagerId } from '../kernel/ids.ts';
import type { DataAddress } from './task.ts';
import type { TaskManagerGateway, WorkerReport } from './task-manager-gateway.ts';

/** A slot that a job holds: ready to take tasks. */
export interface Slot {
  readonly allocationId: AllocationId;
  readonly taskManagerId: TaskManagerId;
  readonly slotIndex: number;
  readonly host: string;
  readonly dataAddress: DataAddress;
  /** Bound to the leader's token. */
  readonly gateway: TaskManagerGateway;
}

export interface SlotRequest {
  readonly jobId: JobId;
  readonly count: number;
  /** Across jobs the highest priority is served first, then the longest waiting. */
  readonly priority: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Called when the cluster has too few slots now, and again when the number missing changes. */
  readonly onWaiting: (missing: number, clusterSlots: number) => void;
}

export type WorkerEvent =
  | { readonly kind: 'registered'; readonly taskManagerId: TaskManagerId; readonly report: WorkerReport }
  /** Heartbeat answered: counters and states of attempts, for display and for reconciliation. */
  | { readonly kind: 'reported'; readonly taskManagerId: TaskManagerId; readonly report: WorkerReport }
  /** Dead, cut off, or gone by itself. Its slots are no longer anybody's. */
  | { readonly kind: 'lost'; readonly taskManagerId: TaskManagerId; readonly reason: string }
  /** Every worker known from before this term has registered or is dead: what they held has been told. Once. */
  | { readonly kind: 'settled' };

/** The ResourceManager as JobMasters see it. */
export interface SlotProvider {
  /**
   * Resolves with exactly `count` slots at once or none: a job never sits on part of what it needs.
   * Rejects with `NO_RESOURCES` after `timeoutMs`, `CLOSED` when `signal` aborts.
   */
  requestSlots(request: SlotRequest): Promise<readonly Slot[]>;
  /**
   * Takes over slots that workers hold for this job since an earlier term, under their allocation ids. Gives
   * those that are held and usable; of the others nothing. Idempotent, at once, without a call to a worker.
   */
  claimSlots(jobId: JobId, allocationIds: readonly AllocationId[]): readonly Slot[];
  /** Gives slots back; the worker ends whatever still runs there. Never rejects. */
  releaseSlots(jobId: JobId, allocationIds: readonly AllocationId[], reason: string): Promise<void>;
  /** The job is over: workers forget it. Never rejects. */
  releaseJob(jobId: JobId): Promise<void>;
  subscribe(listener: (event: WorkerEvent) => void): () => void;
}
