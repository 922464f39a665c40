import type { AttemptReport } from '../contracts/task.ts';
import { isTerminalExecutionState } from '../contracts/job-status.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { asError } from '../kernel/errors.ts';
import type { AttemptId, JobId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../kernel/retry.ts';

/** Where state updates go: the leader with which this worker is registered. */
export type StateUpdate = (report: AttemptReport) => Promise<{ readonly known: boolean }>;

interface Pending {
  readonly report: AttemptReport;
  readonly failures: number;
  readonly notBeforeMs: number;
}

export interface StateReportsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The leader does not know this live attempt: it is nobody's. */
  readonly onUnknown: (attemptId: AttemptId) => void;
  /** The leader answered; it can be reached. */
  readonly onAnswered: () => void;
}

const CONCURRENCY = 16;

/**
 * Changes of attempts' states on their way to the leader, repeated until answered.
 *
 * One place per attempt: a newer state takes the place of one not yet answered, and after an end nothing
 * follows, so no end is lost and the queue is bounded by the attempts held. They outlive a change of
 * leader: the new one is told, too.
 */
export class StateReports {
  private readonly pending = new Map<AttemptId, Pending>();
  private readonly sending = new Set<AttemptId>();
  private readonly background: BackgroundTasks;
  /** Changes with each leader, so that an answer of the one before does not count. */
  private target: { readonly update: StateUpdate } | undefined;
  private timer: Timer | undefined;

  constructor(private readonly deps: StateReportsDeps) {
    this.background = new BackgroundTasks(deps.log);
  }

  get size(): number {
    return this.pending.size;
  }

  enqueue(report: AttemptReport): void {
    const before = this.pending.get(report.attemptId);
    if (before !== undefined && isTerminalExecutionState(before.report.state)) return;
    this.pending.set(report.attemptId, { report, failures: 0, notBeforeMs: 0 });
    this.pump();
  }

  /** Sends to this leader from now on; all waits begin anew. */
  attach(update: StateUpdate): void {
    this.target = { update };
    for (const [attemptId, { report }] of this.pending)
      this.pending.set(attemptId, { report, failures: 0, notBeforeMs: 0 });
    this.pump();
  }

  detach(): void {
    this.target = undefined;
    this.timer?.cancel();
  }

  forgetJob(jobId: JobId): void {
    for (const [attemptId, { report }] of this.pending) if (report.jobId === jobId) this.pending.delete(attemptId);
  }

  async close(): Promise<void> {
    this.detach();
    this.pending.clear();
    await this.background.drain();
  }

  private pump(): void {
    const { target } = this;
    if (target === undefined) return;
    const nowMs = this.deps.clock.nowMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [attemptId, pending] of this.pending) {
      if (this.sending.size >= CONCURRENCY) break;
      if (this.sending.has(attemptId)) continue;
      if (pending.notBeforeMs > nowMs) nextMs = Math.min(nextMs, pending.notBeforeMs);
      else {
        this.sending.add(attemptId);
        this.background.run('send state update', () => this.send(attemptId, pending, target));
      }
    }
    this.timer?.cancel();
    if (nextMs < Number.POSITIVE_INFINITY)
      this.timer = this.deps.clock.schedule(Math.max(1, nextMs - nowMs), () => this.pump());
  }

  private async send(attemptId: AttemptId, sent: Pending, target: { readonly update: StateUpdate }): Promise<void> {
    try {
      const { known } = await target.update(sent.report);
      if (target !== this.target) return;
      this.deps.onAnswered();
      // A newer state may have taken the place meanwhile.
      if (this.pending.get(attemptId)?.report === sent.report) this.pending.delete(attemptId);
      if (!known && !isTerminalExecutionState(sent.report.state)) this.deps.onUnknown(attemptId);
    } catch (error) {
      this.retryLater(attemptId, sent, asError(error));
    } finally {
      this.sending.delete(attemptId);
      this.pump();
    }
  }

  private retryLater(attemptId: AttemptId, sent: Pending, error: Error): void {
    const current = this.pending.get(attemptId);
    if (current === undefined || current.report !== sent.report) return;
    const { clock, random, log } = this.deps;
    // Seldom enough to read, often enough to notice.
    if (sent.failures % 20 === 0)
      log.warn({ attemptId, state: sent.report.state, err: error }, 'state update not delivered, will be repeated');
    this.pending.set(attemptId, {
      report: sent.report,
      failures: sent.failures + 1,
      notBeforeMs: clock.nowMs() + backoffMs(QUICK_BACKOFF, sent.failures, random),
    });
  }
}
