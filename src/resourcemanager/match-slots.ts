import type { JobId, TaskManagerId } from '../kernel/ids.ts';

/**
 * Which waiting request gets which slots, as a pure function.
 *
 * The rule: again and again the waiting request of highest utility (priority, then waiting time) that
 * fits in what is left is granted, all of it or nothing. One that does not fit is passed over, so that a
 * smaller one behind it may run. To keep small ones from starving a large one for ever, a request that
 * has waited longer than `patienceMs` and would fit into the empty cluster ends the round: what becomes
 * free is kept for it. One that could never fit reserves nothing; it fails by its own time-out.
 */
export interface WaitingRequest {
  readonly id: number;
  readonly jobId: JobId;
  readonly count: number;
  readonly priority: number;
  readonly waitingSinceMs: number;
}

export interface FreeSlot {
  readonly taskManagerId: TaskManagerId;
  readonly slotIndex: number;
}

export interface MatchOptions {
  readonly nowMs: number;
  readonly patienceMs: number;
  /** True: as few slots of each worker as possible. False: as few workers as possible. */
  readonly spreadOut: boolean;
  /** All slots of each worker, free or not. */
  readonly slotsOfWorker: ReadonlyMap<TaskManagerId, number>;
}

export interface Match {
  readonly request: WaitingRequest;
  readonly slots: readonly FreeSlot[];
}

export function matchSlots(
  waiting: readonly WaitingRequest[],
  free: readonly FreeSlot[],
  options: MatchOptions,
): readonly Match[] {
  const matches: Match[] = [];
  const clusterSlots = [...options.slotsOfWorker.values()].reduce((sum, slots) => sum + slots, 0);
  let left = [...free];
  for (const request of [...waiting].sort(byUtility)) {
    const slots = pickSlots(request.count, left, options);
    if (slots !== undefined) {
      matches.push({ request, slots });
      const taken = new Set(slots);
      left = left.filter((slot) => !taken.has(slot));
    } else if (request.count <= clusterSlots && options.nowMs - request.waitingSinceMs >= options.patienceMs) break;
  }
  return matches;
}

/** `count` slots, or undefined when there are not enough. */
export function pickSlots(
  count: number,
  free: readonly FreeSlot[],
  options: Pick<MatchOptions, 'spreadOut' | 'slotsOfWorker'>,
): readonly FreeSlot[] | undefined {
  const byWorker = new Map<TaskManagerId, FreeSlot[]>();
  for (const slot of free) {
    const slots = byWorker.get(slot.taskManagerId);
    if (slots === undefined) byWorker.set(slot.taskManagerId, [slot]);
    else slots.push(slot);
  }
  const picked: FreeSlot[] = [];
  while (picked.length < count) {
    const remaining = count - picked.length;
    const slots = options.spreadOut ? leastUsed(byWorker, options.slotsOfWorker) : fewestWorkers(byWorker, remaining);
    const [first] = slots ?? [];
    if (slots === undefined || first === undefined) return undefined;
    picked.push(...slots.splice(0, options.spreadOut ? 1 : remaining));
    if (slots.length === 0) byWorker.delete(first.taskManagerId);
  }
  return picked;
}

function byUtility(a: WaitingRequest, b: WaitingRequest): number {
  return b.priority - a.priority || a.waitingSinceMs - b.waitingSinceMs || a.id - b.id;
}

type ByWorker = ReadonlyMap<TaskManagerId, FreeSlot[]>;

function leastUsed(byWorker: ByWorker, slotsOfWorker: ReadonlyMap<TaskManagerId, number>): FreeSlot[] | undefined {
  const used = (id: TaskManagerId, slots: FreeSlot[]) => 1 - slots.length / (slotsOfWorker.get(id) ?? slots.length);
  return best(byWorker, (a, b) => used(...a) - used(...b) || b[1].length - a[1].length);
}

/** The worker that can take all that is left and is fullest; if none can, the one that takes most of it. */
function fewestWorkers(byWorker: ByWorker, remaining: number): FreeSlot[] | undefined {
  return best(byWorker, ([, a], [, b]) => {
    const fitsA = a.length >= remaining;
    const fitsB = b.length >= remaining;
    if (fitsA !== fitsB) return fitsA ? -1 : 1;
    return fitsA ? a.length - b.length : b.length - a.length;
  });
}

type Candidate = readonly [TaskManagerId, FreeSlot[]];

/** Ties go to the smaller worker id, so that the same state gives the same match. */
function best(byWorker: ByWorker, compare: (a: Candidate, b: Candidate) => number): FreeSlot[] | undefined {
  let winner: Candidate | undefined;
  for (const candidate of byWorker) {
    const order = winner === undefined ? -1 : compare(candidate, winner);
    if (winner === undefined || order < 0 || (order === 0 && candidate[0] < winner[0])) winner = candidate;
  }
  return winner?.[1];
}
