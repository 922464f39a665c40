import type { CanonicalKey } from '../../state/key-group-hash.ts';

export interface KeyTimer {
  /** As the author's key selector gave it, in memory of its own. */
  readonly key: unknown;
  readonly canonical: CanonicalKey;
  readonly keyGroup: number;
}

export interface DueTimer {
  readonly timeMs: number;
  readonly timer: KeyTimer;
}

/**
 * Timers by the millisecond at which they are due.
 *
 *   B1. At most one timer for a (key, time).
 *   B2. They are taken in order of time, then key group, then registration.
 *
 * All timers of one millisecond share one bucket, so the ordered structure (a heap of numbers) holds
 * times and not timers: many keys whose windows end together cost one entry.
 */
export class TimerBuckets {
  private readonly buckets = new Map<number, Map<CanonicalKey, KeyTimer>>();
  /** Every time with a bucket, and times whose bucket was emptied by deletion, until they surface. */
  private readonly times = new NumberHeap();
  private draining: { readonly timeMs: number; readonly queue: KeyTimer[]; next: number } | undefined;
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** False when the key already has one at that time. */
  add(timeMs: number, timer: KeyTimer): boolean {
    let bucket = this.buckets.get(timeMs);
    if (bucket === undefined) {
      bucket = new Map();
      this.buckets.set(timeMs, bucket);
      this.times.push(timeMs);
    } else if (bucket.has(timer.canonical)) return false; // B1
    bucket.set(timer.canonical, timer);
    this.count++;
    // Registered while timers of its very time fire: it comes after those that were there.
    if (this.draining?.timeMs === timeMs) this.draining.queue.push(timer);
    return true;
  }

  has(timeMs: number, canonical: CanonicalKey): boolean {
    return this.buckets.get(timeMs)?.has(canonical) === true;
  }

  delete(timeMs: number, canonical: CanonicalKey): boolean {
    const bucket = this.buckets.get(timeMs);
    if (bucket?.delete(canonical) !== true) return false;
    this.count--;
    if (bucket.size === 0) this.drop(timeMs);
    return true;
  }

  /** The earliest time; `Infinity` when there is none. */
  get nextMs(): number {
    for (;;) {
      const timeMs = this.times.least;
      if (timeMs === undefined) return Number.POSITIVE_INFINITY;
      if (this.buckets.has(timeMs)) return timeMs;
      this.times.pop();
    }
  }

  /** Takes out the next timer due at `untilMs` or before. */
  pop(untilMs: number): DueTimer | undefined {
    const timeMs = this.nextMs;
    if (!(timeMs <= untilMs) || timeMs === Number.POSITIVE_INFINITY) return undefined;
    const bucket = this.buckets.get(timeMs) as Map<CanonicalKey, KeyTimer>;
    if (this.draining?.timeMs !== timeMs) {
      // Iteration is in order of registration, and the sort is stable. B2
      const queue = [...bucket.values()];
      if (queue.length > 1) queue.sort((a, b) => a.keyGroup - b.keyGroup);
      this.draining = { timeMs, queue, next: 0 };
    }
    const { draining } = this;
    for (;;) {
      const timer = draining.queue[draining.next++] as KeyTimer;
      // Deleted meanwhile, or deleted and registered anew: then it stands further behind.
      if (bucket.get(timer.canonical) !== timer) continue;
      bucket.delete(timer.canonical);
      this.count--;
      if (bucket.size === 0) this.drop(timeMs);
      return { timeMs, timer };
    }
  }

  private drop(timeMs: number): void {
    this.buckets.delete(timeMs);
    if (this.draining?.timeMs === timeMs) this.draining = undefined;
    // Timers that are always put off (a timeout per key) would leave a number behind each time.
    if (this.times.size > 64 && this.times.size > 4 * this.buckets.size) this.times.reset(this.buckets.keys());
  }
}

/** A binary heap. A number may be in it twice. */
class NumberHeap {
  private readonly items: number[] = [];

  get size(): number {
    return this.items.length;
  }

  get least(): number | undefined {
    return this.items[0];
  }

  push(value: number): void {
    const { items } = this;
    let at = items.length;
    items.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent] as number;
      if (above <= value) break;
      items[at] = above;
      at = parent;
    }
    items[at] = value;
  }

  pop(): void {
    const last = this.items.pop();
    if (last !== undefined && this.items.length > 0) this.sink(last);
  }

  reset(values: Iterable<number>): void {
    this.items.length = 0;
    for (const value of values) this.items.push(value);
    // A sorted array is a heap.
    this.items.sort((a, b) => a - b);
  }

  private sink(value: number): void {
    const { items } = this;
    const size = items.length;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && (items[child + 1] as number) < (items[child] as number)) child++;
      const below = items[child] as number;
      if (below >= value) break;
      items[at] = below;
      at = child;
    }
    items[at] = value;
  }
}
