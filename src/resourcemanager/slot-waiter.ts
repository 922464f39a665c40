import type { Slot, SlotRequest } from '../contracts/slots.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { WaitingRequest } from './match-slots.ts';

export interface SlotWaiterEvents {
  /** What to reject with when the time is over. */
  readonly expired: () => MillraceError;
  readonly settled: () => void;
  /** While true nothing is decided, so no time-out either; it is looked at again afterwards. */
  readonly suspended: () => boolean;
}

/** Longer ones fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** One request that waits for its slots, with its place in the queue, its deadline and its abort signal. */
export class SlotWaiter {
  readonly promise: Promise<readonly Slot[]>;
  /** Slots are being allocated for it: it takes part in no matching. */
  granting = false;
  settled = false;
  private readonly waitingSinceMs: number;
  private readonly timer: Timer;
  private expired = false;
  private told = '';
  private settle: { resolve: (slots: readonly Slot[]) => void; reject: (error: Error) => void };

  constructor(
    clock: Clock,
    readonly id: number,
    readonly request: SlotRequest,
    private readonly events: SlotWaiterEvents,
  ) {
    this.waitingSinceMs = clock.nowMs();
    this.settle = { resolve: () => {}, reject: () => {} };
    this.promise = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    this.timer = clock.schedule(Math.min(request.timeoutMs, TIMER_MAX_MS), () => {
      this.expired = true;
      // Slots that are under way may still arrive: then the wait was worth it.
      this.rejectIfExpired();
    });
    request.signal.addEventListener('abort', this.onAbort);
  }

  forMatching(): WaitingRequest {
    const { jobId, count, priority } = this.request;
    return { id: this.id, jobId, count, priority, waitingSinceMs: this.waitingSinceMs };
  }

  /** Tells the requester how many slots are missing, whenever that changes. */
  tellWaiting(missing: number, clusterSlots: number): void {
    const news = `${missing}/${clusterSlots}`;
    if (this.settled || news === this.told) return;
    this.told = news;
    this.request.onWaiting(missing, clusterSlots);
  }

  resolve(slots: readonly Slot[]): void {
    if (this.end()) this.settle.resolve(slots);
  }

  reject(error: Error): void {
    if (this.end()) this.settle.reject(error);
  }

  rejectIfExpired(): void {
    if (this.expired && !this.granting && !this.events.suspended()) this.reject(this.events.expired());
  }

  private readonly onAbort = () => this.reject(withdrawn());

  private end(): boolean {
    if (this.settled) return false;
    this.settled = true;
    this.timer.cancel();
    this.request.signal.removeEventListener('abort', this.onAbort);
    this.events.settled();
    return true;
  }
}

export function withdrawn(): MillraceError {
  return new MillraceError('CLOSED', 'the request for slots was withdrawn');
}
