import type { Timer } from '../../src/kernel/clock.ts';

interface Scheduled {
  readonly atMs: number;
  readonly sequence: number;
  fn: (() => void) | undefined;
}

/**
 * The one clock behind all clocks: a queue of events, run one at a time in order of their time, then of
 * their making. Between two events every promise that can settle does, and nothing else happens: no real
 * timer, no real I/O. So a run is a function of its seed.
 */
export class VirtualTime {
  nowMs = 0;
  /** Events run so far. */
  steps = 0;
  private readonly heap: Scheduled[] = [];
  private sequence = 0;

  /** Calls `fn` once at `atMs`, or now when that is past. */
  at(atMs: number, fn: () => void): Timer {
    const event: Scheduled = { atMs: Math.max(atMs, this.nowMs), sequence: this.sequence++, fn };
    this.push(event);
    return {
      cancel: () => {
        event.fn = undefined;
      },
    };
  }

  after(delayMs: number, fn: () => void): Timer {
    return this.at(this.nowMs + Math.max(0, delayMs), fn);
  }

  /**
   * Runs events up to `untilMs`, or until `done` says so. Each event is a tick of its own: Node runs a tick
   * that a microtask asked for only when the queue of microtasks is empty.
   */
  run(untilMs: number, done: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const step = () => {
        const next = done() ? undefined : this.next(untilMs);
        if (next === undefined) {
          resolve();
          return;
        }
        this.nowMs = next.atMs;
        this.steps++;
        next.fn?.();
        // As `queueMicrotask(again)`, without what that costs for async hooks.
        void SETTLED.then(again);
      };
      const again = () => process.nextTick(step);
      again();
    });
  }

  private next(untilMs: number): Scheduled | undefined {
    for (;;) {
      const [first] = this.heap;
      if (first === undefined || first.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return undefined;
      }
      this.pop();
      if (first.fn !== undefined) return first;
    }
  }

  private push(event: Scheduled): void {
    const { heap } = this;
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Scheduled;
      if (before(above, event)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = event;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop() as Scheduled;
    const size = heap.length;
    if (size === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      if (child + 1 < size && before(heap[child + 1] as Scheduled, heap[child] as Scheduled)) child++;
      const below = heap[child] as Scheduled;
      if (before(last, below)) break;
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
  }
}

const SETTLED = Promise.resolve();

function before(a: Scheduled, b: Scheduled): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence);
}
