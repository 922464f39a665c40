import { isConnectionRefused } from '../contracts/gateway.ts';
import type { WorkerReport } from '../contracts/task-manager-gateway.ts';
import { type Clock, every, type Timer } from '../kernel/clock.ts';
import { asError, isMillraceError } from '../kernel/errors.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';

export interface HeartbeatMonitorDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly ask: () => Promise<WorkerReport>;
  /** While true nothing is decided: silence may be our own fault. */
  readonly suspended: () => boolean;
  /** Called before each question; its result comes back with the answer. */
  readonly mark: () => number;
  readonly answered: (report: WorkerReport, askedAt: number) => void;
  /** Called once: the worker is dead or cut off. */
  readonly dead: (reason: string) => void;
  readonly fenced: (error: Error) => void;
}

export interface HeartbeatOptions {
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

/** Refusals in a row that prove a dead process. One may be a restart of the worker's server; two are not chance. */
const REFUSALS = 2;
const OVERDUE_INTERVALS = 2.5;
/** Well over the first reconnect back-off of the RPC layer (20 ms ± 20 %), so that each refusal is of a connect of its own. */
const PROBE_AGAIN_MS = 50;

/**
 * Asks one worker for its heartbeat. Dead is: silent for the whole time-out by the monotonic clock, or
 * connections refused twice in a row, which takes some fifty milliseconds. Time-outs and unreachable hosts
 * are never taken as proof before the time-out.
 */
export class HeartbeatMonitor {
  /** From when the time-out counts. */
  private lastAnsweredMs: number;
  private heardMs = Number.NEGATIVE_INFINITY;
  private lastTickMs: number;
  private refusals = 0;
  private asking = false;
  private refused = false;
  private closed = false;
  private readonly ticking: Timer;
  private soon: Timer | undefined;
  private readonly background: BackgroundTasks;

  constructor(
    private readonly deps: HeartbeatMonitorDeps,
    private readonly options: HeartbeatOptions,
  ) {
    this.lastAnsweredMs = deps.clock.nowMs();
    this.lastTickMs = this.lastAnsweredMs;
    this.background = new BackgroundTasks(deps.log);
    this.ticking = every(deps.clock, options.intervalMs, () => this.tick());
  }

  /**
   * Whether the worker answers as it should. One that does not is no place for a new job, long before it
   * counts as lost; nor is one that has registered but was never reached.
   */
  get responsive(): boolean {
    return this.deps.clock.nowMs() - this.heardMs <= OVERDUE_INTERVALS * this.options.intervalMs;
  }

  /** Asks at once: the connection broke, or the worker has registered again. */
  probe(): void {
    if (this.closed) return;
    this.soon?.cancel();
    this.soon = undefined;
    if (this.asking) return;
    this.asking = true;
    this.background.run('heartbeat', () => this.ask());
  }

  close(): void {
    this.closed = true;
    this.ticking.cancel();
    this.soon?.cancel();
  }

  private tick(): void {
    const nowMs = this.deps.clock.nowMs();
    const { intervalMs, timeoutMs } = this.options;
    const wasAway = nowMs - this.lastTickMs > intervalMs + timeoutMs / 2;
    this.lastTickMs = nowMs;
    // This process was stopped, or in doubt of its leadership: the worker's time begins anew.
    if (wasAway || this.deps.suspended()) this.lastAnsweredMs = nowMs;
    const silentMs = nowMs - this.lastAnsweredMs;
    if (silentMs >= timeoutMs) this.declareDead(`no heartbeat for ${Math.round(silentMs)} ms`);
    else this.probe();
  }

  private async ask(): Promise<void> {
    const sentMs = this.deps.clock.nowMs();
    const askedAt = this.deps.mark();
    try {
      const report = await this.deps.ask();
      if (this.closed) return;
      this.refusals = 0;
      this.lastAnsweredMs = Math.max(this.lastAnsweredMs, sentMs);
      this.heardMs = sentMs;
      this.deps.answered(report, askedAt);
    } catch (error) {
      if (!this.closed) this.onFailure(asError(error));
    } finally {
      this.asking = false;
    }
  }

  private onFailure(error: Error): void {
    // For people: it lives, and only an upgrade makes it this leader's.
    if (isMillraceError(error, 'UNSUPPORTED_VERSION') && !this.refused) {
      this.refused = true;
      this.deps.log.warn({ err: error, hint: error.hint }, 'a worker of another version refuses this leader');
    } else this.deps.log.debug({ err: error }, 'heartbeat failed');
    if (isMillraceError(error, 'FENCED')) {
      this.deps.fenced(error);
      return;
    }
    this.refusals = isConnectionRefused(error) ? this.refusals + 1 : 0;
    if (this.refusals >= REFUSALS && !this.deps.suspended()) {
      this.declareDead('its process is gone: connections are refused');
      return;
    }
    // No connection: ask again soon, to tell a dead process from a broken connection.
    if (isMillraceError(error, 'UNAVAILABLE')) {
      this.soon?.cancel();
      this.soon = this.deps.clock.schedule(Math.min(PROBE_AGAIN_MS, this.options.intervalMs), () => this.probe());
    }
  }

  private declareDead(reason: string): void {
    if (this.closed) return;
    this.close();
    this.deps.dead(reason);
  }
}
