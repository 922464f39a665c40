import type { IoMetrics } from '../contracts/task.ts';
import type { DirectLine } from '../exchange/direct-line.ts';

/** Why a task does not run now. `yielded` counts as busy: it has work and waits for its turn. */
export type Waiting = 'idle' | 'backpressured' | 'yielded';

/** Counts what a task does: fields that are incremented, and two readings of the clock per slice. */
export class IoMeter {
  readRecords = 0;
  writeRecords = 0;
  readBytes = 0;
  writeBytes = 0;
  /** Over which records may have gone that are not counted yet. */
  readonly lines: DirectLine[] = [];
  private busyMs = 0;
  private idleMs = 0;
  private backPressuredMs = 0;
  private sinceMs: number | undefined;
  private waiting: Waiting = 'idle';

  /** The task begins to run, or a slice begins. */
  begin(nowMs: number): void {
    this.settle(nowMs);
    this.waiting = 'yielded';
  }

  /** The slice ends. */
  end(nowMs: number, waiting: Waiting): void {
    this.settle(nowMs);
    this.waiting = waiting;
  }

  stop(nowMs: number): void {
    this.settle(nowMs);
    this.sinceMs = undefined;
  }

  report(nowMs: number): IoMetrics {
    if (this.sinceMs !== undefined) this.settle(nowMs);
    for (const line of this.lines) line.settle();
    return {
      readRecords: this.readRecords,
      writeRecords: this.writeRecords,
      readBytes: this.readBytes,
      writeBytes: this.writeBytes,
      backPressuredMs: this.backPressuredMs,
      idleMs: this.idleMs,
      busyMs: this.busyMs,
    };
  }

  private settle(nowMs: number): void {
    const elapsedMs = this.sinceMs === undefined ? 0 : Math.max(0, nowMs - this.sinceMs);
    this.sinceMs = nowMs;
    if (this.waiting === 'idle') this.idleMs += elapsedMs;
    else if (this.waiting === 'backpressured') this.backPressuredMs += elapsedMs;
    else this.busyMs += elapsedMs;
  }
}
