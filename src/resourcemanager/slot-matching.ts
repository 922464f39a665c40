import type { JobId, TaskManagerId } from '../kernel/ids.ts';

/**
 * Which waiting job gets which free slots: a pure function over what is known now.
 *
 * The rule is greedy. Again and again the waiting job of highest utility is served that fits in what is
 * left: utility is priority, then waiting time. A job gets all its slots or none, so that two jobs never
 * hold half of what each needs and wait for each other.
 *
 * Against starvation: a job that does not fit lets smaller ones pass only while it has waited less
 * than `reserveAfterMs`. From then on nobody behind it is served, so freed slots gather for it.
 */
export interface WaitingJob {
  readonly requestId: number;
  readonly jobId: JobId;
  readonly count: number;
  readonly priority: number;
  readonly waitedMs: number;
}

export interface FreeSlot {
  readonly taskManagerId: TaskManagerId;
  readonly slotIndex: number;
}

export interface SlotGrant {
  readonly requestId: number;
  readonly slots: readonly FreeSlot[];
}

export interface MatchOptions {
  /** Over as many workers as possible, instead of as few. */
  readonly spreadOut: boolean;
  readonly reserveAfterMs: number;
  /** Slots of each worker that are in use: spreading looks at the whole load, not at this job's alone. */
  readonly usedByWorker: ReadonlyMap<TaskManagerId, number>;
}

export function matchSlots(
  waiting: readonly WaitingJob[],
  free: readonly FreeSlot[],
  options: MatchOptions,
): readonly SlotGrant[] {
  const pool = new SlotPool(free, options);
  const grants: SlotGrant[] = [];
  for (const job of [...waiting].sort(byUtility)) {
    const slots = pool.take(job.count);
    if (slots !== undefined) grants.push({ requestId: job.requestId, slots });
    else if (job.waitedMs >= options.reserveAfterMs) break;
  }
  return grants;
}

function byUtility(a: WaitingJob, b: WaitingJob): number {
  return b.priority - a.priority || b.waitedMs - a.waitedMs || a.requestId - b.requestId;
}

class SlotPool {
  private readonly freeByWorker = new Map<TaskManagerId, FreeSlot[]>();
  private readonly used: Map<TaskManagerId, number>;
  private readonly spreadOut: boolean;
  private left: number;

  constructor(free: readonly FreeSlot[], options: MatchOptions) {
    for (const slot of free) {
      const slots = this.freeByWorker.get(slot.taskManagerId);
      if (slots === undefined) this.freeByWorker.set(slot.taskManagerId, [slot]);
      else slots.push(slot);
    }
    for (const slots of this.freeByWorker.values()) slots.sort((a, b) => b.slotIndex - a.slotIndex);
    this.used = new Map(options.usedByWorker);
    this.spreadOut = options.spreadOut;
    this.left = free.length;
  }

  take(count: number): readonly FreeSlot[] | undefined {
    if (count > this.left) return undefined;
    const taken: FreeSlot[] = [];
    while (taken.length < count) {
      const worker = this.next();
      const slot = worker === undefined ? undefined : this.freeByWorker.get(worker)?.pop();
      if (worker === undefined || slot === undefined) throw new Error('the pool counted more slots than it holds');
      taken.push(slot);
      this.left--;
      this.used.set(worker, (this.used.get(worker) ?? 0) + 1);
    }
    return taken;
  }

  /** Spread: the least loaded worker. Fill: the one with the fewest free slots left, so that whole workers stay free. */
  private next(): TaskManagerId | undefined {
    let best: TaskManagerId | undefined;
    let bestScore = Number.POSITIVE_INFINITY;
    for (const [worker, slots] of this.freeByWorker) {
      if (slots.length === 0) continue;
      const score = this.spreadOut ? (this.used.get(worker) ?? 0) : slots.length;
      if (score < bestScore || (score === bestScore && best !== undefined && worker < best))
        [best, bestScore] = [worker, score];
    }
    return best;
  }
}
