import type { Clock } from '../kernel/clock.ts';
import { MillraceError, NotFoundError, UnavailableError } from '../kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type JobId } from '../kernel/ids.ts';
import type { Subpartition } from './subpartition.ts';

/** Names one subpartition in the cluster. */
export interface SubpartitionId {
  readonly jobId: JobId;
  readonly deployment: DeploymentId;
  readonly attemptId: AttemptId;
  readonly edgeId: string;
  readonly subpartition: number;
}

interface Waiter {
  readonly id: SubpartitionId;
  readonly found: (subpartition: Subpartition) => void;
  readonly refused: (error: Error) => void;
}

/** The outputs of a slot's tasks, where readers find them, also those that come before the task does. */
export class SubpartitionRegistry {
  private current: { readonly jobId: JobId; readonly oldestLive: DeploymentId } | undefined;
  private readonly subpartitions = new Map<
    string,
    { readonly id: SubpartitionId; readonly subpartition: Subpartition }
  >();
  private readonly waiters = new Set<Waiter>();

  constructor(private readonly clock: Clock) {}

  /**
   * Newer tasks come to the slot: outputs of the attempts that they replace are forgotten and their readers
   * refused, and so are those of deployments before `oldestLive`, which are over.
   */
  begin(jobId: JobId, oldestLive: DeploymentId, replaced: ReadonlySet<AttemptId>): void {
    this.current = { jobId, oldestLive };
    for (const [key, { id, subpartition }] of this.subpartitions) {
      if (!replaced.has(id.attemptId) && compareDeployments(id.deployment, oldestLive) >= 0) continue;
      this.subpartitions.delete(key);
      subpartition.fail(replacedError(id));
    }
    for (const waiter of [...this.waiters]) {
      const refusal = replaced.has(waiter.id.attemptId) ? replacedError(waiter.id) : this.refusal(waiter.id);
      if (refusal !== undefined) waiter.refused(refusal);
    }
  }

  add(id: SubpartitionId, subpartition: Subpartition): void {
    const key = keyOf(id);
    this.subpartitions.set(key, { id, subpartition });
    for (const waiter of [...this.waiters]) if (keyOf(waiter.id) === key) waiter.found(subpartition);
  }

  /** Waits up to `waitMs` for the producer. Rejects with `UNAVAILABLE` after that, `CONFLICT` for an older deployment. */
  find(id: SubpartitionId, waitMs: number, signal: AbortSignal): Promise<Subpartition> {
    const refusal = this.refusal(id);
    if (refusal !== undefined) return Promise.reject(refusal);
    const present = this.subpartitions.get(keyOf(id));
    if (present !== undefined) return Promise.resolve(present.subpartition);
    return new Promise((resolve, reject) => {
      const done = () => {
        timer.cancel();
        signal.removeEventListener('abort', onAbort);
        this.waiters.delete(waiter);
      };
      const waiter: Waiter = {
        id,
        found: (subpartition) => {
          done();
          resolve(subpartition);
        },
        refused: (error) => {
          done();
          reject(error);
        },
      };
      const onAbort = () => waiter.refused(new MillraceError('CLOSED', 'the consumer went away'));
      const timer = this.clock.schedule(waitMs, () =>
        waiter.refused(new UnavailableError(`the producer ${describe(id)} did not appear within ${waitMs} ms`)),
      );
      this.waiters.add(waiter);
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Consumers that wait for a producer. */
  get waiting(): number {
    return this.waiters.size;
  }

  failAll(error: Error): void {
    for (const { subpartition } of this.subpartitions.values()) subpartition.fail(error);
  }

  close(): void {
    const closed = new MillraceError('CLOSED', 'the slot is closing');
    for (const waiter of [...this.waiters]) waiter.refused(closed);
    this.failAll(closed);
    this.subpartitions.clear();
  }

  private refusal(id: SubpartitionId): Error | undefined {
    // Nothing runs here yet: the deployment may be on its way.
    if (this.current === undefined) return undefined;
    if (this.current.jobId !== id.jobId) return new NotFoundError(`this slot runs another job than ${id.jobId}`);
    if (compareDeployments(id.deployment, this.current.oldestLive) < 0) {
      return new MillraceError('CONFLICT', `deployment ${id.deployment} was replaced by ${this.current.oldestLive}`);
    }
    return undefined;
  }
}

function replacedError(id: SubpartitionId): MillraceError {
  return new MillraceError('CONFLICT', `${describe(id)} was replaced`);
}

function keyOf(id: SubpartitionId): string {
  return `${id.deployment}/${id.attemptId}/${id.edgeId}/${id.subpartition}`;
}

function describe(id: SubpartitionId): string {
  return `attempt ${id.attemptId} of deployment ${id.deployment}, subpartition ${id.subpartition} of edge ${id.edgeId}`;
}
