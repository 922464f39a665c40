import type { SubmitResult } from '../contracts/dispatcher-gateway.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { JobMasterHandle, JobOutcome } from '../contracts/job-master.ts';
import type { Leadership } from '../contracts/leadership.ts';
import type { JobDetailsView, JobOverviewView } from '../contracts/views.ts';
import { type Clock, every, sleep, type Timer } from '../kernel/clock.ts';
import {
  asError,
  isMillraceError,
  MillraceError,
  NotFoundError,
  NotLeaderError,
  UnknownOutcomeError,
} from '../kernel/errors.ts';
import type { FencingToken, JobId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, backoffMs, retry } from '../kernel/retry.ts';
import {
  brokenJobView,
  cancelledJobView,
  endedJobView,
  notYetEnded,
  overviewOf,
  startingJobView,
} from './job-views.ts';
import type { OperatedJob } from './job-operations.ts';
import type { JobGraphStore, JobMasterFactory, JobMasterStart, JobResult, JobResultStore, StoredJob } from './ports.ts';

export interface TermDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly graphs: JobGraphStore;
  readonly results: JobResultStore;
  readonly jobMasters: JobMasterFactory;
  /** Workers forget the job: for one that ends without ever having had a JobMaster in this term. */
  readonly releaseJob: (jobId: JobId) => Promise<void>;
}

export interface TermOptions {
  /** Ended jobs remembered. */
  readonly historyMax: number;
}

type TermJob =
  | { readonly kind: 'starting'; readonly stored: StoredJob }
  | { readonly kind: 'running'; readonly master: JobMasterHandle }
  | { readonly kind: 'broken'; readonly stored: StoredJob; readonly error: Error; readonly sinceMs: number }
  /** All is done but the record of it: still shown as not ended, because it may yet be done again. */
  | { readonly kind: 'ending'; readonly outcome: JobOutcome; readonly master: JobMasterHandle | undefined };

/** Waits between tries at what must happen in the end: a store that is away, a graph that cannot be read. */
const PATIENT: Backoff = { initialMs: 100, maxMs: 10_000, multiplier: 2 };
const LOADS_AT_ONCE = 8;
/**
 * Stored jobs are compared with the known ones this often: a submission whose answer was lost may
 * take effect after it was looked for, and was promised all the same.
 */
const RECONCILE_INTERVAL_MS = 30_000;

/**
 * The Dispatcher's work during one term of leadership: recover what was promised, run what is
 * submitted, record how it ended. Ended with the term, whole: nothing of it acts for a later one.
 *
 * Invariants:
 *   D1. A job is answered for only after its pointer is durable.
 *   D2. A job with a result is never started.
 *   D3. Each job is on its own: what is wrong with one never stops another.
 *   D4. After `close` nothing is started and no JobMaster of this term is left. Tasks are not cancelled.
 *   D5. A job is shown as ended only once its result is durable: until then a new leader may run it again.
 *   D6. A wish to cancel is durable before it is acted upon, and acted upon whatever state the job is in.
 *   D7. A job that a client is told of is known here before: no later request is answered with "there is no such job".
 */
export class DispatcherTerm {
  readonly token: FencingToken;
  private readonly jobs = new Map<JobId, TermJob>();
  private readonly ended = new Map<JobId, JobResult & { readonly overview: JobOverviewView }>();
  private readonly submissions = new Map<string, Promise<SubmitResult>>();
  private readonly background: BackgroundTasks;
  private readonly closed = new AbortController();
  private readonly log: Logger;
  private readonly reconciling: Timer;
  private closing: Promise<void> | undefined;
  private adopting: Promise<void> | undefined;
  private suspended = false;
  private recovered = false;

  constructor(
    private readonly deps: TermDeps,
    private readonly leadership: Leadership,
    private readonly options: TermOptions,
  ) {
    this.token = leadership.token;
    this.log = deps.log.child({ token: this.token.toString() });
    this.background = new BackgroundTasks(this.log);
    this.background.run('recover', () => this.recover());
    this.reconciling = every(deps.clock, RECONCILE_INTERVAL_MS, () => {
      if (this.recovered && !this.suspended) this.background.run('reconcile', () => this.adoptUnknown());
    });
  }

  suspend(): void {
    this.suspended = true;
    for (const job of this.jobs.values()) masterOf(job)?.suspend();
  }

  resume(): void {
    this.suspended = false;
    for (const job of this.jobs.values()) masterOf(job)?.resume();
  }

  /** Idempotent. Resolves once nothing of the term is left, and no write of it is on its way. */
  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  private async closeAll(): Promise<void> {
    this.closed.abort();
    this.reconciling.cancel();
    const masters = [...this.jobs.values()].flatMap((job) => masterOf(job) ?? []);
    this.jobs.clear();
    const ends = await Promise.allSettled(masters.map((master) => master.close()));
    for (const end of ends)
      if (end.status === 'rejected') this.log.error({ err: asError(end.reason) }, 'a JobMaster failed to close');
    await Promise.allSettled(this.submissions.values());
    await this.background.drain();
  }

  /** Throws `NOT_LEADER` unless decisions may be taken now. */
  mustLead(): void {
    this.mustNotBeOver();
    if (this.suspended || !this.leadership.isValid()) {
      throw new NotLeaderError('The leader is not sure of its leadership and takes no decisions.', AGAIN);
    }
    if (!this.recovered) throw new NotLeaderError('The leader is still reading which jobs there are.', AGAIN);
  }

  /** Not "there is no such job", from a leader that has just let go of all its jobs. */
  private mustNotBeOver(): void {
    if (this.closed.signal.aborted) throw new NotLeaderError('This master no longer leads.', AGAIN);
  }

  submit(graph: JobGraph, options: { readonly idempotencyKey?: string }): Promise<SubmitResult> {
    this.mustLead();
    // Two requests for one job at once share one submission; the store decides about all others.
    const name = options.idempotencyKey === undefined ? `id ${graph.jobId}` : `key ${options.idempotencyKey}`;
    const present = this.submissions.get(name);
    if (present !== undefined) return present.then(({ jobId }) => ({ jobId, outcome: 'duplicate' }));
    const submission = this.store(graph, options).finally(() => this.submissions.delete(name));
    this.submissions.set(name, submission);
    return submission;
  }

  /** The job that this id already stands for, running or ended. */
  knows(jobId: JobId): boolean {
    return this.jobs.has(jobId) || this.ended.has(jobId);
  }

  /** Whether the job is to run and its master has not started: while the list is being read that may be any job. */
  awaitsMaster(jobId: JobId): boolean {
    return !this.recovered || this.waiting(jobId) !== undefined;
  }

  /** Undefined: no such job, as far as this term knows; during recovery it does not know yet. */
  jobMaster(jobId: JobId): JobMasterHandle | 'not-running' | undefined {
    const job = this.jobs.get(jobId);
    return job === undefined ? undefined : (masterOf(job) ?? 'not-running');
  }

  /** The job as operations see it. @throws `NOT_LEADER` once the term is over: then nothing is known of any job. */
  operated(jobId: JobId): OperatedJob {
    this.mustNotBeOver();
    const job = this.jobs.get(jobId);
    switch (job?.kind) {
      case 'running':
        return { kind: 'running', master: job.master };
      case 'ending':
        return { kind: 'ending' };
      case 'starting':
      case 'broken':
        return { kind: 'waiting' };
      case undefined: {
        const result = this.ended.get(jobId);
        return result === undefined ? undefined : { kind: 'ended', status: result.status };
      }
    }
  }

  list(): readonly JobOverviewView[] {
    this.mustLead();
    const running = [...this.jobs.values()].map((job) => this.viewOf(job));
    const ended = [...this.ended].flatMap(([jobId, result]) => (this.jobs.has(jobId) ? [] : [result.overview]));
    return [...running, ...ended].sort((a, b) => b.startMs - a.startMs);
  }

  async details(jobId: JobId): Promise<JobDetailsView> {
    this.mustLead();
    const job = this.jobs.get(jobId);
    if (job !== undefined) return this.viewOf(job);
    const result = this.ended.get(jobId);
    if (result === undefined) throw new NotFoundError(`There is no job ${jobId}.`);
    return (await this.deps.results.details(jobId)) ?? endedJobView(result);
  }

  /** Durable first: the wish survives this leader. */
  async cancel(jobId: JobId): Promise<void> {
    this.mustLead();
    if (!this.jobs.has(jobId)) return this.cancelOver(jobId);
    try {
      await this.fenced(() => this.deps.graphs.requestCancel(jobId, this.token));
    } catch (error) {
      if (isMillraceError(error, 'NOT_FOUND')) return this.cancelOver(jobId);
      throw error;
    }
    const job = this.jobs.get(jobId); // It may have changed meanwhile.
    switch (job?.kind) {
      case 'running':
        job.master.cancel();
        return;
      case 'starting':
        this.jobs.set(jobId, { ...job, stored: { ...job.stored, cancelRequested: true } });
        return;
      case 'broken':
        this.jobs.set(jobId, { ...job, stored: { ...job.stored, cancelRequested: true } });
        this.endHopeless(jobId);
        return;
      case 'ending': // However it ended, it did so first.
      case undefined: // The term is over: the next leader finds the wish.
        return;
    }
  }

  /** Nothing is left to cancel. Whoever asks again, because a leader died with the answer, has what he wanted. */
  private cancelOver(jobId: JobId): void {
    this.mustNotBeOver();
    const status = this.ended.get(jobId)?.status ?? this.statusOfEnding(jobId);
    if (status === undefined) throw new NotFoundError(`There is no job ${jobId}.`);
    if (status === 'CANCELED') return;
    throw new MillraceError('CONFLICT', `Job ${jobId} has already ended: ${status}.`);
  }

  private statusOfEnding(jobId: JobId): string | undefined {
    const job = this.jobs.get(jobId);
    return job?.kind === 'ending' ? job.outcome.status : undefined;
  }

  private async store(graph: JobGraph, options: { readonly idempotencyKey?: string }): Promise<SubmitResult> {
    let result: SubmitResult;
    try {
      result = await this.fenced(() => this.deps.graphs.submit(graph, this.token, options));
      if (result.outcome === 'duplicate') await this.learnOf(result.jobId);
    } catch (error) {
      // It may be stored all the same: then it was promised, whether or not the client asks again.
      if (isMillraceError(error, 'UNKNOWN_OUTCOME'))
        this.background.run('look for a doubtful submission', () => this.adoptUnknown());
      throw error;
    }
    if (this.closed.signal.aborted) return result; // Durable: the next leader runs it.
    if (result.outcome === 'created') {
      this.log.info({ jobId: graph.jobId, name: graph.name }, 'job submitted');
      this.startOrMourn(graph);
    }
    return result;
  }

  /** D7. A stored job that is not known here: the answer to its submission was lost, or is still on its way. */
  async learnOf(jobId: JobId): Promise<void> {
    if (this.knows(jobId)) return;
    // A listing of its own: one that is under way may have begun before the job was stored.
    const stored = await this.fenced(() => this.deps.graphs.list()).catch((cause: unknown) => {
      // Not "unavailable", which would say that nothing is stored.
      throw new UnknownOutcomeError(`Job ${jobId} is stored, and could not be looked up.`, { ...AGAIN, cause });
    });
    const found = this.note(stored);
    this.background.run('start a job found by its second submission', () => this.startAll(found));
  }

  private async recover(): Promise<void> {
    const startedMs = this.deps.clock.nowMs();
    const [results, stored] = await this.patiently('list jobs', () =>
      Promise.all([this.deps.results.list(), this.deps.graphs.list()]),
    );
    if (this.closed.signal.aborted) return;
    for (const result of results) this.ended.set(result.jobId, result);
    const open = stored.filter(({ jobId }) => !this.ended.has(jobId)); // D2
    for (const job of open) this.jobs.set(job.jobId, { kind: 'starting', stored: job });
    this.recovered = true;
    this.log.info(
      { jobs: open.length, results: results.length, tookMs: Math.round(this.deps.clock.nowMs() - startedMs) },
      'jobs listed',
    );
    for (const { jobId, dirty } of results)
      if (dirty) this.background.run('finish a clean-up', () => this.finishCleanUp(jobId));
    this.background.run('forget old results', () => this.forgetOld());
    this.background.run('recover jobs', () => this.startAll(open.map(({ jobId }) => jobId)));
  }

  private async startAll(jobIds: readonly JobId[]): Promise<void> {
    const queue = [...jobIds];
    const worker = async () => {
      for (let jobId = queue.shift(); jobId !== undefined; jobId = queue.shift()) {
        const id = jobId;
        if ((await this.tryStart(id)) === 'broken')
          this.background.run('retry a broken job', () => this.keepTrying(id));
      }
    };
    await Promise.all(Array.from({ length: LOADS_AT_ONCE }, worker));
  }

  /** Starts what is stored and not known here: after a lost answer, or a submission that came twice. */
  private adoptUnknown(): Promise<void> {
    this.adopting ??= this.adoptStored().finally(() => {
      this.adopting = undefined;
    });
    return this.adopting;
  }

  private async adoptStored(): Promise<void> {
    await this.startAll(this.note(await this.patiently('list jobs again', () => this.deps.graphs.list())));
  }

  /** From here on these jobs are known: the ids of those that were not. */
  private note(stored: readonly StoredJob[]): readonly JobId[] {
    const unknown = this.closed.signal.aborted ? [] : stored.filter(({ jobId }) => !this.knows(jobId));
    for (const job of unknown) this.jobs.set(job.jobId, { kind: 'starting', stored: job });
    return unknown.map(({ jobId }) => jobId);
  }

  /** The job if it still is to be started: it may have been cancelled, started or ended, or the term be over. */
  private waiting(jobId: JobId): (TermJob & { kind: 'starting' | 'broken' }) | undefined {
    const job = this.jobs.get(jobId);
    if (this.closed.signal.aborted) return undefined;
    return job?.kind === 'starting' || job?.kind === 'broken' ? job : undefined;
  }

  private async tryStart(jobId: JobId): Promise<'settled' | 'broken'> {
    try {
      const graph = await this.deps.graphs.load(jobId);
      const job = this.waiting(jobId);
      if (job === undefined) return 'settled';
      this.start(graph, { cancelRequested: job.stored.cancelRequested, recovered: true });
      this.log.info({ jobId, name: graph.name }, 'job recovered');
      return 'settled';
    } catch (thrown) {
      if (this.waiting(jobId) === undefined) return 'settled';
      if (isMillraceError(thrown, 'NOT_FOUND') && (await this.hasEnded(jobId))) return 'settled';
      return this.mourn(jobId, asError(thrown));
    }
  }

  /** A job that is not stored any more has a result, or had one that was forgotten. */
  private async hasEnded(jobId: JobId): Promise<boolean> {
    const results = await this.patiently('list results again', () => this.deps.results.list());
    const result = results.find((one) => one.jobId === jobId);
    if (this.waiting(jobId) === undefined) return true;
    if (result !== undefined) this.ended.set(jobId, result);
    this.jobs.delete(jobId);
    return true;
  }

  /** The job stays promised: it is shown with its reason and tried again, or ended if that is its wish. */
  private mourn(jobId: JobId, error: Error): 'settled' | 'broken' {
    const job = this.waiting(jobId);
    if (job === undefined) return 'settled';
    const sinceMs = job.kind === 'broken' ? job.sinceMs : this.deps.clock.wallMs();
    if (job.kind !== 'broken') this.log.error({ jobId, err: error }, 'job cannot be recovered; it is retried');
    this.jobs.set(jobId, { kind: 'broken', stored: job.stored, error, sinceMs });
    return this.endHopeless(jobId) ? 'settled' : 'broken';
  }

  private async keepTrying(jobId: JobId): Promise<void> {
    for (let attempt = 0; this.waiting(jobId) !== undefined; attempt++) {
      await sleep(this.deps.clock, backoffMs(PATIENT, attempt, this.deps.random), this.closed.signal);
      if (this.waiting(jobId) === undefined || (await this.tryStart(jobId)) === 'settled') return;
    }
  }

  /** A new job is durable whatever happens now, so it is not refused for a JobMaster that fails to start. */
  private startOrMourn(graph: JobGraph): void {
    const { jobId, name, submittedWallMs } = graph;
    if (this.knows(jobId)) return; // A doubtful submission may have been found and started already.
    this.jobs.set(jobId, { kind: 'starting', stored: { jobId, name, submittedWallMs, cancelRequested: false } });
    try {
      this.start(graph, { cancelRequested: false, recovered: false });
    } catch (error) {
      if (this.mourn(jobId, asError(error)) === 'broken')
        this.background.run('retry a broken job', () => this.keepTrying(jobId));
    }
  }

  private start(graph: JobGraph, options: JobMasterStart): void {
    const { jobId } = graph;
    if (this.waiting(jobId) === undefined || this.ended.has(jobId)) return; // D2, D4
    const master = this.deps.jobMasters.start(graph, this.token, options);
    if (this.suspended) master.suspend();
    this.jobs.set(jobId, { kind: 'running', master });
    // Not raced with the end of the term: a master that was closed never terminates, and is let go.
    master.terminated.then(
      (outcome) => {
        const job = this.jobs.get(jobId);
        if (job?.kind === 'running' && job.master === master) this.end(outcome, master);
      },
      (error: unknown) => this.log.error({ err: asError(error), jobId }, 'a JobMaster ended without an outcome'),
    );
  }

  /** A job that cannot run, and shall not: ended on request. What is merely away is waited for instead. */
  private endHopeless(jobId: JobId): boolean {
    const job = this.jobs.get(jobId);
    if (job?.kind !== 'broken' || !job.stored.cancelRequested || isPassing(job.error)) return false;
    const details = cancelledJobView(job.stored, job.error, job.sinceMs, this.deps.clock.wallMs());
    this.end({ jobId, status: 'CANCELED', error: undefined, details }, undefined);
    return true;
  }

  private end(outcome: JobOutcome, master: JobMasterHandle | undefined): void {
    this.jobs.set(outcome.jobId, { kind: 'ending', outcome, master });
    this.background.run('end a job', () => this.finish(outcome, master));
  }

  /** Repeated until it is durable: an end that is not recorded has not happened. */
  private async finish(outcome: JobOutcome, master: JobMasterHandle | undefined): Promise<void> {
    const { jobId, status, error, details } = outcome;
    const result: JobResult = { jobId, name: details.name, status, error, endedWallMs: this.deps.clock.wallMs() };
    await this.patiently('record the end of a job', () => this.deps.results.complete(result, details, this.token));
    if (this.closed.signal.aborted) return;
    this.ended.set(jobId, { ...result, overview: overviewOf(details) });
    this.jobs.delete(jobId);
    this.log.info({ jobId, status }, 'job ended');
    if (master === undefined) await this.deps.releaseJob(jobId);
    else await master.close();
    await this.cleanUp(jobId);
    await this.forgetOld();
  }

  /** The leader that recorded the end may have died before it told the workers to forget the job. */
  private async finishCleanUp(jobId: JobId): Promise<void> {
    await this.deps.releaseJob(jobId);
    await this.cleanUp(jobId);
  }

  private async cleanUp(jobId: JobId): Promise<void> {
    await this.patiently('clean up after a job', () => this.deps.results.cleanUp(jobId, this.token));
  }

  private async forgetOld(): Promise<void> {
    const { historyMax } = this.options;
    if (this.ended.size <= historyMax) return;
    await this.patiently('forget old results', () => this.deps.results.expire(historyMax, this.token));
    const oldest = [...this.ended.values()].sort((a, b) => b.endedWallMs - a.endedWallMs).slice(historyMax);
    for (const { jobId } of oldest) this.ended.delete(jobId);
  }

  private viewOf(job: TermJob): JobDetailsView {
    switch (job.kind) {
      case 'running':
        return notYetEnded(job.master.details());
      case 'ending':
        return notYetEnded(job.outcome.details);
      case 'broken':
        return brokenJobView(job.stored, job.error, job.sinceMs, this.deps.clock.wallMs());
      case 'starting':
        return startingJobView(job.stored, this.deps.clock.wallMs());
    }
  }

  /** Repeats what must happen in the end, over any failure but a lost leadership. */
  private patiently<T>(what: string, work: () => Promise<T>): Promise<T> {
    return retry(
      this.deps,
      {
        backoff: PATIENT,
        retryable: (error) => !isMillraceError(error, 'FENCED'),
        onRetry: (error, attempt, waitMs) =>
          this.log.warn(
            { err: asError(error), what, attempt, waitMs: Math.round(waitMs) },
            'failed and will be repeated',
          ),
        signal: this.closed.signal,
      },
      () => this.fenced(work),
    );
  }

  /** A store that refuses the token has the last word: leadership is given up. */
  async fenced<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isMillraceError(error, 'FENCED')) this.leadership.abdicate(error.message);
      throw error;
    }
  }
}

const AGAIN = { hint: 'Repeat the request in a second.' };

function masterOf(job: TermJob): JobMasterHandle | undefined {
  return job.kind === 'running' || job.kind === 'ending' ? job.master : undefined;
}

/** Failures that end by themselves: a store or peer that is away. */
function isPassing(error: Error): boolean {
  return (
    isMillraceError(error, 'UNAVAILABLE') ||
    isMillraceError(error, 'TIMEOUT') ||
    isMillraceError(error, 'UNKNOWN_OUTCOME')
  );
}
