import type { CheckpointAck, CheckpointDecline } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import { sleep } from '../kernel/clock.ts';
import { asError, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { JobId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../kernel/retry.ts';

export type CheckpointMessage =
  | { readonly kind: 'ack'; readonly ack: CheckpointAck }
  | { readonly kind: 'decline'; readonly decline: CheckpointDecline };

export interface CheckpointTarget {
  acknowledge(ack: CheckpointAck): Promise<unknown>;
  decline(decline: CheckpointDecline): Promise<unknown>;
}

export interface CheckpointMessagesDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly onAnswered: () => void;
}

const WAITING_MAX = 10_000;
const CONCURRENCY = 8;

/**
 * Answers to checkpoints on their way to the leader that asked for them. Repeated while it leads; a new
 * leader has aborted what the old one had in flight, so theirs are dropped. When more wait than fit, the
 * oldest goes: its checkpoint then ends by its time-out.
 */
export class CheckpointMessages {
  private waiting: CheckpointMessage[] = [];
  private target: CheckpointTarget | undefined;
  private stopped = new AbortController();
  private lanes = 0;
  /** Counts leaders. */
  private term = 0;
  private readonly background: BackgroundTasks;

  constructor(private readonly deps: CheckpointMessagesDeps) {
    this.background = new BackgroundTasks(deps.log);
  }

  get size(): number {
    return this.waiting.length;
  }

  enqueue(message: CheckpointMessage): void {
    if (this.waiting.length >= WAITING_MAX) {
      const dropped = this.waiting.shift();
      this.deps.log.warn({ ...nameOf(dropped), waiting: WAITING_MAX }, 'checkpoint answer dropped: too many wait');
    }
    this.waiting.push(message);
    this.pump();
  }

  attach(target: CheckpointTarget): void {
    this.target = target;
    this.pump();
  }

  /** The leader is silent: what waits is kept, in case that it goes on leading. */
  detach(): void {
    this.target = undefined;
    this.stopped.abort();
    this.stopped = new AbortController();
  }

  /** Another leads: what waits concerns nobody. */
  clear(): void {
    this.term++;
    this.detach();
    this.waiting = [];
  }

  forgetJob(jobId: JobId): void {
    this.waiting = this.waiting.filter((message) => bodyOf(message).jobId !== jobId);
  }

  async close(): Promise<void> {
    this.clear();
    await this.background.drain();
  }

  private pump(): void {
    while (this.target !== undefined && this.lanes < CONCURRENCY) {
      const message = this.waiting.shift();
      if (message === undefined) return;
      this.lanes++;
      const { target } = this;
      const { signal } = this.stopped;
      this.background.run('send checkpoint answer', async () => {
        try {
          await this.deliver(message, target, signal);
        } finally {
          this.lanes--;
          this.pump();
        }
      });
    }
  }

  private async deliver(first: CheckpointMessage, target: CheckpointTarget, signal: AbortSignal): Promise<void> {
    const { term } = this;
    let message = first;
    for (let failures = 0; ; failures++) {
      try {
        if (message.kind === 'ack') await target.acknowledge(message.ack);
        else await target.decline(message.decline);
        this.deps.onAnswered();
        return;
      } catch (thrown) {
        const error = asError(thrown);
        if (failures % 20 === 0)
          this.deps.log.warn({ ...nameOf(message), err: error }, 'checkpoint answer not delivered');
        if (isHopeless(error)) {
          // The leader will never take this acknowledgement: it had better know now than by time-out.
          if (message.kind === 'decline') return;
          message = { kind: 'decline', decline: declineOf(message.ack, error) };
          continue;
        }
        if (!signal.aborted)
          await sleep(this.deps.clock, backoffMs(QUICK_BACKOFF, Math.min(failures, 10), this.deps.random), signal);
        if (signal.aborted) {
          // Silent only, not replaced: it may still be wanted.
          if (term === this.term) this.waiting.unshift(message);
          return;
        }
      }
    }
  }
}

function isHopeless(error: Error): boolean {
  return (
    isMillraceError(error, 'INVALID_ARGUMENT') ||
    isMillraceError(error, 'TOO_LARGE') ||
    isMillraceError(error, 'INTERNAL')
  );
}

function declineOf(ack: CheckpointAck, error: Error): CheckpointDecline {
  const { jobId, deployment, checkpointId, vertexId, subtaskIndex, attemptId } = ack;
  return { jobId, deployment, checkpointId, vertexId, subtaskIndex, attemptId, reason: toErrorInfo(error) };
}

function bodyOf(message: CheckpointMessage): CheckpointAck | CheckpointDecline {
  return message.kind === 'ack' ? message.ack : message.decline;
}

function nameOf(message: CheckpointMessage | undefined): object {
  if (message === undefined) return {};
  const { jobId, checkpointId, attemptId } = bodyOf(message);
  return { kind: message.kind, jobId, checkpointId, attemptId };
}
