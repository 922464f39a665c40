import type { OperationView, SavepointTrigger } from '../contracts/dispatcher-gateway.ts';
import type { JobMasterHandle } from '../contracts/job-master.ts';
import {
  failedWith,
  isCheckpointOperation,
  type Operation,
  type OperationRequest,
  type OperationStore,
  type SavepointStore,
  succeeded,
  type TriggerId,
} from '../contracts/operations.ts';
import type { Clock } from '../kernel/clock.ts';
import {
  asError,
  isMillraceError,
  MillraceError,
  NotFoundError,
  toErrorInfo,
  UnavailableError,
} from '../kernel/errors.ts';
import type { FencingToken, JobId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, retry } from '../kernel/retry.ts';

/** A job as operations see it. `ending`: it has ended, and that is not on record yet. */
export type OperatedJob =
  | { readonly kind: 'running'; readonly master: JobMasterHandle }
  | { readonly kind: 'waiting' }
  | { readonly kind: 'ending' }
  | { readonly kind: 'ended'; readonly status: string }
  | undefined;

export interface JobOperationsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly operations: OperationStore;
  readonly savepoints: SavepointStore;
  readonly token: FencingToken;
  readonly jobOf: (jobId: JobId) => OperatedJob;
  /** Reports a fenced write to the term. */
  readonly fenced: <T>(work: () => Promise<T>) => Promise<T>;
}

const PATIENT: Backoff = { initialMs: 100, maxMs: 10_000, multiplier: 2 };

/**
 * Savepoints, checkpoints on request, stops and disposals, during one term of leadership.
 *
 * Invariants:
 *   P1. A request is answered once its record is durable; repeated under its id it is the same operation.
 *   P2. A job ends with one savepoint at most: while one that ends the job is in progress another is refused,
 *       and no later request changes the result of an earlier one.
 *   P3. A record without a result whose job has ended never gets one: it has failed.
 */
export class JobOperations {
  private readonly closed = new AbortController();
  private readonly background: BackgroundTasks;

  constructor(private readonly deps: JobOperationsDeps) {
    this.background = new BackgroundTasks(deps.log);
    this.background.run('go on with disposals', () => this.resumeDisposals());
  }

  async close(): Promise<void> {
    this.closed.abort();
    await this.background.drain();
  }

  async savepoint(jobId: JobId, trigger: SavepointTrigger): Promise<TriggerId> {
    const { savepoints, random } = this.deps;
    const name = `savepoint-${jobId.slice(0, 6)}-${random.hex(6)}`;
    const location = savepoints.locate(trigger.targetDirectory, name);
    const { stop, cancelJob } = trigger;
    const ends = stop !== undefined || cancelJob === true;
    return await this.begin(
      jobId,
      trigger.triggerId,
      {
        kind: 'SAVEPOINT',
        location,
        ...(stop === undefined ? {} : { stop }),
        ...(cancelJob === true ? { cancelJob } : {}),
      },
      { ends },
    );
  }

  async checkpoint(
    jobId: JobId,
    trigger: { readonly triggerId?: TriggerId; readonly full: boolean },
  ): Promise<TriggerId> {
    return await this.begin(jobId, trigger.triggerId, { kind: 'CHECKPOINT', full: trigger.full }, { ends: false });
  }

  async status(jobId: JobId, kind: 'SAVEPOINT' | 'CHECKPOINT', triggerId: TriggerId): Promise<OperationView> {
    // The job first: a result is written only while its job runs, so what is missing afterwards never comes. P3
    const job = this.deps.jobOf(jobId);
    const operation = await this.deps.operations.get(jobId, triggerId);
    if (operation?.request.kind !== kind) throw unknown(triggerId);
    return this.viewOf(operation, job);
  }

  async dispose(path: string, triggerId: TriggerId | undefined): Promise<TriggerId> {
    const { savepoints } = this.deps;
    const id = triggerId ?? this.newTriggerId();
    const { outcome, operation } = await this.deps.fenced(() =>
      this.deps.operations.begin(
        {
          triggerId: id,
          request: { kind: 'DISPOSAL', metadataKey: savepoints.resolve(path) },
          startedWallMs: this.deps.clock.wallMs(),
        },
        this.deps.token,
      ),
    );
    if (outcome === 'created')
      this.background.run('dispose of a savepoint', () => this.runDisposal(operation, 'first'));
    return id;
  }

  async disposal(triggerId: TriggerId): Promise<OperationView> {
    const operation = await this.deps.operations.get('disposals', triggerId);
    if (operation === undefined) throw unknown(triggerId);
    return this.viewOf(operation, { kind: 'waiting' });
  }

  private async begin(
    jobId: JobId,
    chosen: TriggerId | undefined,
    request: OperationRequest,
    { ends }: { readonly ends: boolean },
  ): Promise<TriggerId> {
    const { operations, token, clock } = this.deps;
    const triggerId = chosen ?? this.newTriggerId();
    if (chosen !== undefined) {
      const present = await operations.get(jobId, chosen);
      if (present !== undefined) return this.again(jobId, present, request);
    }
    const master = this.runningMaster(jobId);
    await this.refuseBehindAnEnd(jobId, ends);
    const begun = await this.deps
      .fenced(() => operations.begin({ triggerId, jobId, request, startedWallMs: clock.wallMs() }, token))
      .catch((error: unknown) => {
        if (isMillraceError(error, 'NOT_FOUND')) this.refuse(jobId);
        throw error;
      });
    if (begun.outcome === 'existing') return this.again(jobId, begun.operation, request);
    if (isCheckpointOperation(begun.operation)) master.requestCheckpoint(begun.operation);
    return triggerId;
  }

  /** Its master may not know of it: when it was stored, the answer may have been lost. Known twice it is done once. */
  private again(jobId: JobId, operation: Operation, wanted: OperationRequest): TriggerId {
    const triggerId = this.same(operation, wanted);
    if (operation.result !== undefined || !isCheckpointOperation(operation)) return triggerId;
    const job = this.deps.jobOf(jobId);
    if (job?.kind === 'running') job.master.requestCheckpoint(operation);
    return triggerId;
  }

  /** P1 */
  private same({ triggerId, request }: Operation, wanted: OperationRequest): TriggerId {
    if (request.kind === wanted.kind) return triggerId;
    throw new MillraceError('CONFLICT', `trigger id ${triggerId} stands for another operation of this job`, {
      hint: 'Choose another trigger id, or none.',
    });
  }

  /** P2 */
  private async refuseBehindAnEnd(jobId: JobId, ends: boolean): Promise<void> {
    const pending = await this.deps.operations.pending(jobId);
    const ending = pending.find(({ request }) => endsJob(request));
    if (ending === undefined) return;
    throw new MillraceError(
      'CONFLICT',
      `job ${jobId} is about to end with the savepoint of trigger ${ending.triggerId}`,
      {
        hint: ends
          ? 'Ask for the status of that trigger.'
          : 'Its result will be a savepoint; no other can be taken meanwhile.',
      },
    );
  }

  private runningMaster(jobId: JobId): JobMasterHandle {
    const job = this.deps.jobOf(jobId);
    if (job?.kind !== 'running') this.refuse(jobId);
    const { status } = job.master.details();
    // A new leader that takes the job over need not refuse what can wait for it: the job runs all the while.
    if (status !== 'RUNNING' && status !== 'RECONCILING') throw notRunning(jobId, status);
    return job.master;
  }

  private refuse(jobId: JobId): never {
    const job = this.deps.jobOf(jobId);
    if (job === undefined) throw new NotFoundError(`There is no job ${jobId}.`);
    if (job.kind === 'waiting')
      throw new UnavailableError(`Job ${jobId} is being taken over by a new leader.`, { hint: 'Repeat the request.' });
    throw notRunning(jobId, job.kind === 'ended' ? job.status : 'it is about to end');
  }

  private viewOf({ request, result }: Operation, job: OperatedJob): OperationView {
    const alive = job !== undefined && job.kind !== 'ended';
    if (result === undefined) {
      if (alive) return { status: 'IN_PROGRESS' };
      const how = job?.kind === 'ended' ? `has ended: ${job.status}` : 'is gone';
      return { status: 'COMPLETED', failure: { code: 'CONFLICT', message: `the job ${how}, before its savepoint` } };
    }
    if (result.kind === 'FAILURE') return { status: 'COMPLETED', failure: result.error };
    // As in Flink: a stop is over when the job is.
    if (request.kind === 'SAVEPOINT' && request.stop !== undefined && alive) return { status: 'IN_PROGRESS' };
    return {
      status: 'COMPLETED',
      ...(result.checkpointId === undefined ? {} : { checkpointId: result.checkpointId }),
      ...(request.kind === 'SAVEPOINT'
        ? { location: this.deps.savepoints.urlOf(result.location ?? request.location) }
        : {}),
    };
  }

  private async resumeDisposals(): Promise<void> {
    const pending = await this.patiently('list disposals', () => this.deps.operations.pending('disposals'));
    for (const operation of pending ?? []) await this.runDisposal(operation, 'again');
  }

  private async runDisposal({ triggerId, request }: Operation, attempt: 'first' | 'again'): Promise<void> {
    if (request.kind !== 'DISPOSAL') return;
    const { operations, savepoints, token } = this.deps;
    let tries = 0;
    const result = await this.patiently('dispose of a savepoint', async () => {
      tries++;
      try {
        await savepoints.dispose(request.metadataKey, token);
        return succeeded();
      } catch (error) {
        if (isPassing(error)) throw error;
        // The leader that began it, or a try whose answer was lost, may have come as far as that.
        const goneAlready = isMillraceError(error, 'NOT_FOUND') && (attempt === 'again' || tries > 1);
        return goneAlready ? succeeded() : failedWith(toErrorInfo(error));
      }
    });
    if (result === undefined) return;
    await this.patiently('record a disposal', () => operations.finish('disposals', triggerId, result, token));
  }

  /** Undefined when the term ended first: the next leader goes on. */
  private async patiently<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    const { clock, random, log } = this.deps;
    try {
      return await retry(
        { clock, random },
        {
          backoff: PATIENT,
          retryable: (error) => !isMillraceError(error, 'FENCED'),
          onRetry: (error, n) => log.warn({ err: asError(error), what, attempt: n }, 'failed and will be repeated'),
          signal: this.closed.signal,
        },
        () => this.deps.fenced(work),
      );
    } catch (error) {
      if (this.closed.signal.aborted || isMillraceError(error, 'FENCED')) return undefined;
      throw error;
    }
  }

  private newTriggerId(): TriggerId {
    return this.deps.random.hex(16) as TriggerId;
  }
}

function endsJob(request: OperationRequest): boolean {
  return request.kind === 'SAVEPOINT' && (request.stop !== undefined || request.cancelJob === true);
}

function isPassing(error: unknown): boolean {
  return !(
    isMillraceError(error, 'NOT_FOUND') ||
    isMillraceError(error, 'CONFLICT') ||
    isMillraceError(error, 'INVALID_ARGUMENT') ||
    isMillraceError(error, 'CORRUPT') ||
    isMillraceError(error, 'UNSUPPORTED_VERSION')
  );
}

function notRunning(jobId: JobId, status: string): MillraceError {
  return new MillraceError('CONFLICT', `Job ${jobId} is not running: ${status}.`, {
    hint: 'Checkpoints and savepoints are taken of running jobs.',
  });
}

function unknown(triggerId: TriggerId): NotFoundError {
  return new NotFoundError(`There is no operation ${triggerId}.`, {
    hint: 'Results of a job are kept as long as the job is remembered, the newest 32 of them.',
  });
}
