import type { Clock } from '../kernel/clock.ts';

/** Runs until `deadlineMs` on the monotonic clock, and says whether there is more to do now. Must not throw. */
export interface Runnable {
  runSlice(deadlineMs: number): boolean;
}

/** One task's turn. */
const SLICE_MS = 1;
/** All tasks' turns before sockets and timers are served again. */
const TURN_MS = 2;

/**
 * The one loop of a slot's thread: tasks with work take turns in short slices, input and output are
 * served in between. With nothing to do it does not run at all: whoever makes work calls `wake`.
 */
export class RunLoop {
  /** In order of their turn. */
  private readonly ready = new Set<Runnable>();
  private scheduled: NodeJS.Immediate | undefined;
  private closed = false;

  constructor(private readonly clock: Clock) {}

  wake(task: Runnable): void {
    if (this.closed) return;
    this.ready.add(task);
    this.scheduled ??= setImmediate(this.turn);
  }

  remove(task: Runnable): void {
    this.ready.delete(task);
  }

  close(): void {
    this.closed = true;
    this.ready.clear();
    clearImmediate(this.scheduled);
    this.scheduled = undefined;
  }

  private readonly turn = (): void => {
    this.scheduled = undefined;
    let nowMs = this.clock.nowMs();
    const endMs = nowMs + TURN_MS;
    while (nowMs < endMs) {
      const task = this.ready.values().next().value;
      if (task === undefined) return;
      this.ready.delete(task);
      if (task.runSlice(nowMs + SLICE_MS)) this.ready.add(task);
      nowMs = this.clock.nowMs();
    }
    if (this.ready.size > 0 && !this.closed) this.scheduled ??= setImmediate(this.turn);
  };
}
