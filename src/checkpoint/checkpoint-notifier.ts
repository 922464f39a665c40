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

/** Tasks of one deployment on one worker: a notice is theirs only, so that no zombie commits by it. */
export interface NoticeGroup {
  readonly taskManagerId: TaskManagerId;
  readonly deployment: DeploymentId;
  readonly gateway: TaskManagerGateway;
}

/**
 * Tells the workers of one run how its checkpoints ended.
 *
 * A notice of completion is repeated until the worker has answered, because sinks commit by it and
 * tasks at their end wait for it. One notice at a time per worker, so that they arrive in order. A
 * notice of abortion is mostly a courtesy (it frees resources early) and is sent once; where tasks have stopped
 * for the checkpoint it is repeated in the same way.
 */
export class CheckpointNotifier {
  private readonly queues = new Map<NoticeGroup, Notice[]>();
  private readonly busy = new Set<NoticeGroup>();
  private readonly stopped = new AbortController();
  private paused: { readonly resume: () => void; readonly wait: Promise<void> } | undefined;

  constructor(
    private readonly deps: NotifierDeps,
    private readonly run: { readonly jobId: JobId; readonly groups: readonly NoticeGroup[] },
  ) {}

  completed(checkpointId: number): void {
    this.enqueue({ kind: 'completed', checkpointId });
  }

  private enqueue(notice: Notice): void {
    for (const group of this.run.groups) {
      const queue = this.queues.get(group) ?? [];
      this.queues.set(group, queue);
      queue.push(notice);
      if (queue.length > NOTICES_MAX) queue.shift();
      if (this.busy.has(group)) continue;
      this.busy.add(group);
      this.deps.background.run('notify how checkpoints ended', () => this.deliver(group, queue));
    }
  }

  /** `surely`: repeated like a completion, because tasks wait for it. */
  aborted(checkpointId: number, latestCompletedId: number | undefined, { surely = false } = {}): void {
    if (surely) {
      this.enqueue({ kind: 'aborted', checkpointId, latestCompletedId });
      return;
    }
    const notice = { jobId: this.run.jobId, checkpointId, ...optional(latestCompletedId) };
    for (const { taskManagerId, deployment, gateway } of this.run.groups) {
      this.deps.background.run('notify checkpoint aborted', async () => {
        try {
          await gateway.notifyCheckpointAborted({ ...notice, deployment });
        } catch (error) {
          this.failed(error, taskManagerId, checkpointId);
        }
      });
    }
  }

  /**
   * Nothing up to this id is in progress any more. Repeated until answered: a task that waits for barriers of a
   * checkpoint that died with its leader would wait until the next one.
   */
  abortedUpTo(checkpointId: number, latestCompletedId: number | undefined): void {
    const notice = { jobId: this.run.jobId, checkpointId, andOlder: true, ...optional(latestCompletedId) };
    for (const { taskManagerId, deployment, gateway } of this.run.groups)
      this.deps.background.run('abort older checkpoints', async () => {
        const tell = () => gateway.notifyCheckpointAborted({ ...notice, deployment });
        await this.untilTold(taskManagerId, checkpointId, tell);
      });
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

  private async deliver(group: NoticeGroup, queue: Notice[]): Promise<void> {
    const { taskManagerId, deployment, gateway } = group;
    const { jobId } = this.run;
    try {
      for (;;) {
        const notice = queue[0];
        if (notice === undefined) return;
        const { checkpointId } = notice;
        const tell =
          notice.kind === 'completed'
            ? () => gateway.notifyCheckpointComplete({ jobId, deployment, checkpointId })
            : () =>
                gateway.notifyCheckpointAborted({
                  jobId,
                  deployment,
                  checkpointId,
                  ...optional(notice.latestCompletedId),
                });
        if (!(await this.untilTold(taskManagerId, checkpointId, tell))) return;
        if (queue[0] === notice) queue.shift();
      }
    } finally {
      this.busy.delete(group);
    }
  }

  /** False: stopped before the worker answered. */
  private async untilTold(worker: TaskManagerId, checkpointId: number, tell: () => Promise<unknown>): Promise<boolean> {
    const { clock, random } = this.deps;
    for (let attempt = 0; ; attempt++) {
      while (this.paused !== undefined) await this.paused.wait;
      if (this.stopped.signal.aborted) return false;
      try {
        await tell();
        return true;
      } catch (error) {
        if (this.failed(error, worker, checkpointId) === 'fenced') return false;
        await sleep(clock, backoffMs(NOTICE_BACKOFF, attempt, random), this.stopped.signal);
      }
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

function optional(latestCompletedId: number | undefined) {
  return latestCompletedId === undefined ? {} : { latestCompletedId };
}
