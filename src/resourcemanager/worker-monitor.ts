import { type GatewayConnection, isConnectionRefused } from '../contracts/gateway.ts';
import type { taskManagerGatewaySpec, WorkerReport } from '../contracts/task-manager-gateway.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, isMillraceError } from '../kernel/errors.ts';
import type { Logger } from '../kernel/log.ts';

export type WorkerConnection = GatewayConnection<typeof taskManagerGatewaySpec>;

export interface MonitorOptions {
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
}

export interface MonitorEvents {
  reported(report: WorkerReport): void;
  /** Called once; nothing is called after it. */
  lost(reason: string): void;
  fenced(reason: string): void;
}

/** Between the two refusals that prove a worker's process dead. */
const REFUSED_AGAIN_MS = 30;

/**
 * Watches one worker by asking it for a heartbeat.
 *
 * Two ways of being lost. Silence for `heartbeatTimeoutMs` on the monotonic clock: the worker may live
 * on somewhere, and fencing deals with that. Or a refused connection, twice: its machine answers and
 * nobody listens there any more, so the process is dead and waiting would be a waste.
 */
export class WorkerMonitor {
  private readonly stopped = new AbortController();
  private wake: (() => void) | undefined;
  private lastAnswerMs: number;
  private suspended = false;
  readonly finished: Promise<void>;

  constructor(
    private readonly deps: { readonly clock: Clock; readonly log: Logger; readonly events: MonitorEvents },
    private readonly connection: WorkerConnection,
    private readonly options: MonitorOptions,
  ) {
    this.lastAnswerMs = deps.clock.nowMs();
    const unsubscribe = connection.onConnectionLost(() => this.wake?.());
    this.finished = this.loop().finally(unsubscribe);
  }

  /** While leadership is in doubt nobody is asked and nobody is given up. */
  suspend(): void {
    this.suspended = true;
  }

  resume(): void {
    this.suspended = false;
    this.lastAnswerMs = this.deps.clock.nowMs();
  }

  /** The worker has just proved itself alive in another way. */
  heardFrom(): void {
    this.lastAnswerMs = this.deps.clock.nowMs();
  }

  stop(): void {
    this.stopped.abort();
    this.wake?.();
  }

  private async loop(): Promise<void> {
    let refused = 0;
    while (!this.stopped.signal.aborted) {
      await this.pause(refused > 0 ? REFUSED_AGAIN_MS : this.options.heartbeatIntervalMs);
      if (this.stopped.signal.aborted) return;
      if (this.suspended) continue;
      const outcome = await this.ask();
      if (this.stopped.signal.aborted || outcome === 'fenced') return;
      refused = outcome === 'refused' ? refused + 1 : 0;
      const silentMs = this.deps.clock.nowMs() - this.lastAnswerMs;
      if (this.suspended) continue;
      if (refused >= 2) return this.deps.events.lost('its process has ended: connections are refused');
      if (silentMs >= this.options.heartbeatTimeoutMs) {
        return this.deps.events.lost(`no heartbeat for ${Math.round(silentMs)} ms`);
      }
    }
  }

  private async ask(): Promise<'answered' | 'silent' | 'refused' | 'fenced'> {
    try {
      const report = await this.connection.heartbeat({});
      if (this.stopped.signal.aborted) return 'answered';
      this.lastAnswerMs = this.deps.clock.nowMs();
      this.deps.events.reported(report);
      return 'answered';
    } catch (error) {
      if (isMillraceError(error, 'FENCED')) {
        this.deps.events.fenced(error.message);
        return 'fenced';
      }
      this.deps.log.debug({ err: asError(error) }, 'heartbeat not answered');
      return isConnectionRefused(error) ? 'refused' : 'silent';
    }
  }

  /** Waits, but not when the connection breaks meanwhile: then the worker is asked at once. */
  private async pause(ms: number): Promise<void> {
    const early = new AbortController();
    this.wake = () => early.abort();
    await sleep(this.deps.clock, ms, early.signal);
    this.wake = undefined;
  }
}
