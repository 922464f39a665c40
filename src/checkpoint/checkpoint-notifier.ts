import type { TaskManagerGateway } from '../contracts/task-manager-gateway.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { DeploymentId, JobId, TaskManagerId } from '../kernel/ids.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, backoffMs } from '../kernel/retry.ts';

const NOTICE_BACKOFF: Backoff = { initialMs: 100, maxMs: 2_000, multiplier: 2 };
/** Notices waiting for one worker. When more are due the oldest goes: a later one commits what it would have. */
const NOTICES_MAX = 64;

type Notice =
  | { readonly kind: 'completed'; readonly checkpointId: number }
  | { readonly kind: 'aborted'; readonly checkpointId: number; readonly latestCompletedId: number | undefined };

export interface NotifierDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly background: BackgroundTasks;
  readonly onFenced: (reason: string) => void;
}

/**
 * Tells the workers of one deployment how its checkpoints ended.
 *
 * A notice of completion is repeated until the worker has answered, because sinks commit by it and
 * tasks at their end wait for it. One notice at a time per worker, so that they arrive in order. A
 * notice of abortion is mostly a courtesy (it frees resources early) and is sent once; where tasks have stopped
 * for the checkpoint it is repeated in the same way.
 */
export class CheckpointNotifier {
  private readonly queues = new Map<TaskManagerId, Notice[]>();
  private readonly busy = new Set<TaskManagerId>();
  private readonly stopped = new AbortController();
  private paused: { readonly resume: () => void; readonly wait: Promise<void> } | undefined;

  constructor(
    private readonly deps: NotifierDeps,
    private readonly run: {
      readonly jobId: JobId;
      readonly deployment: DeploymentId;
      readonly gateways: ReadonlyMap<TaskManagerId, TaskManagerGateway>;
    },
  ) {}

  completed(checkpointId: number): void {
    this.enqueue({ kind: 'completed', checkpointId });
  }

  private enqueue(notice: Notice): void {
    for (const [worker, gateway] of this.run.gateways) {
      const queue = this.queues.get(worker) ?? [];
      this.queues.set(worker, queue);
      queue.push(notice);
      if (queue.length > NOTICES_MAX) queue.shift();
      if (this.busy.has(worker)) continue;
      this.busy.add(worker);
      this.deps.background.run('notify how checkpoints ended', () => this.deliver(worker, gateway, queue));
    }
  }

  /** `surely`: repeated like a completion, because tasks wait for it. */
  aborted(checkpointId: number, latestCompletedId: number | undefined, { surely = false } = {}): void {
    if (surely) {
      this.enqueue({ kind: 'aborted', checkpointId, latestCompletedId });
      return;
    }
    const { jobId, deployment } = this.run;
    const latest = latestCompletedId === undefined ? {} : { latestCompletedId };
    for (const [worker, gateway] of this.run.gateways) {
      this.deps.background.run('notify checkpoint aborted', async () => {
        try {
          await gateway.notifyCheckpointAborted({ jobId, deployment, checkpointId, ...latest });
        } catch (error) {
          this.failed(error, worker, checkpointId);
        }
      });
    }
  }

  /** No notice leaves until `resume`. */
  suspend(): void {
    if (this.paused !== undefined) return;
    let resume = () => {};
    const wait = new Promise<void>((resolve) => {
      resume = resolve;
    });
    this.paused = { resume, wait };
  }

  resume(): void {
    this.paused?.resume();
    this.paused = undefined;
  }

  stop(): void {
    this.stopped.abort();
    this.resume();
  }

  private async deliver(worker: TaskManagerId, gateway: TaskManagerGateway, queue: Notice[]): Promise<void> {
    const { clock, random } = this.deps;
    const { jobId, deployment } = this.run;
    try {
      for (let attempt = 0; ; ) {
        while (this.paused !== undefined) await this.paused.wait;
        const notice = queue[0];
        if (notice === undefined || this.stopped.signal.aborted) return;
        const { checkpointId } = notice;
        try {
          if (notice.kind === 'completed') {
            await gateway.notifyCheckpointComplete({ jobId, deployment, checkpointId });
          } else {
            const { latestCompletedId } = notice;
            const latest = latestCompletedId === undefined ? {} : { latestCompletedId };
            await gateway.notifyCheckpointAborted({ jobId, deployment, checkpointId, ...latest });
          }
          if (queue[0] === notice) queue.shift();
          attempt = 0;
        } catch (error) {
          if (this.failed(error, worker, checkpointId) === 'fenced') return;
          await sleep(clock, backoffMs(NOTICE_BACKOFF, attempt++, random), this.stopped.signal);
        }
      }
    } finally {
      this.busy.delete(worker);
    }
  }

  private failed(error: unknown, worker: TaskManagerId, checkpointId: number): 'fenced' | 'again' {
    if (this.stopped.signal.aborted) return 'again';
    if (isMillraceError(error, 'FENCED')) {
      this.stopped.abort();
      this.deps.onFenced(error.message);
      return 'fenced';
    }
    const fields = { err: toErrorInfo(error), taskManagerId: worker, checkpointId };
    this.deps.log.warn(fields, 'worker could not be told how a checkpoint ended');
    return 'again';
  }
}
