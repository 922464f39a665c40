import type { SubmitResult } from '../contracts/dispatcher-gateway.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { JobMasterHandle, JobOutcome } from '../contracts/job-master.ts';
import type { Leadership } from '../contracts/leadership.ts';
import type { JobDetailsView, JobOverviewView } from '../contracts/views.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError, NotFoundError, NotLeaderError } from '../kernel/errors.ts';
import type { FencingToken, JobId } from '../kernel/ids.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, backoffMs, retry } from '../kernel/retry.ts';
import { brokenJobView, endedJobView } from './broken-job.ts';
import type { JobGraphStore, JobMasterFactory, JobResult, JobResultStore, StoredJob } from './ports.ts';

export interface TermDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly graphs: JobGraphStore;
  readonly results: JobResultStore;
  readonly jobMasters: JobMasterFactory;
}

export interface TermOptions {
  /** Ended jobs remembered. */
  readonly historyMax: number;
}

type TermJob =
  | { readonly kind: 'starting'; readonly stored: StoredJob }
  | { readonly kind: 'running'; readonly master: JobMasterHandle }
  | { readonly kind: 'broken'; readonly stored: StoredJob; readonly error: Error; readonly sinceMs: number };

/** Waits between tries at what must happen in the end: a store that is away, a graph that cannot be read. */
const PATIENT: Backoff = { initialMs: 100, maxMs: 10_000, multiplier: 2 };
const LOADS_AT_ONCE = 8;

/**
 * The Dispatcher's work during one term of leadership: recover what was promised, run what is
 * submitted, record how it ended. Ended with the term, whole: nothing of it acts for a later one.
 *
 * Invariants:
 *   D1. A job is answered for only after its pointer is durable.
 *   D2. A job with a result is never started.
 *   D3. Each job is on its own: what is wrong with one never stops another.
 *   D4. After `close` nothing is started and no JobMaster of this term is left. Tasks are not cancelled.
 */
export class DispatcherTerm {
  readonly token: FencingToken;
  private readonly jobs = new Map<JobId, TermJob>();
  private readonly ended = new Map<JobId, JobResult & { readonly overview: JobOverviewView }>();
  private readonly submissions = new Map<string, Promise<SubmitResult>>();
  private readonly background: BackgroundTasks;
  private readonly closed = new AbortController();
  private readonly log: Logger;
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
  }

  suspend(): void {
    this.suspended = true;
    for (const job of this.jobs.values()) if (job.kind === 'running') job.master.suspend();
  }

  resume(): void {
    this.suspended = false;
    for (const job of this.jobs.values()) if (job.kind === 'running') job.master.resume();
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.closed.signal.aborted) return;
    this.closed.abort();
    const masters = [...this.jobs.values()].flatMap((job) => (job.kind === 'running' ? [job.master] : []));
    this.jobs.clear();
    await Promise.all(masters.map((master) => master.close()));
    await this.background.drain();
  }

  /** Throws `NOT_LEADER` unless decisions may be taken now. */
  mustLead(): void {
    if (this.closed.signal.aborted) throw new NotLeaderError('This master no longer leads.', AGAIN);
    if (this.suspended || !this.leadership.isValid()) {
      throw new NotLeaderError('The leader is not sure of its leadership and takes no decisions.', AGAIN);
    }
    if (!this.recovered) throw new NotLeaderError('The leader is still reading which jobs there are.', AGAIN);
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

  /** Undefined: no such job, as far as this term knows; during recovery it does not know yet. */
  jobMaster(jobId: JobId): JobMasterHandle | 'not-running' | undefined {
    const job = this.jobs.get(jobId);
    if (job === undefined) return undefined;
    return job.kind === 'running' ? job.master : 'not-running';
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
    if (!this.jobs.has(jobId)) this.refuseCancel(jobId);
    try {
      await this.fenced(() => this.deps.graphs.requestCancel(jobId, this.token));
    } catch (error) {
      if (isMillraceError(error, 'NOT_FOUND')) this.refuseCancel(jobId);
      throw error;
    }
    const job = this.jobs.get(jobId);
    if (job?.kind === 'running') job.master.cancel();
    if (job?.kind === 'broken') this.endBroken(job, 'CANCELED');
  }

  private refuseCancel(jobId: JobId): never {
    const result = this.ended.get(jobId);
    if (result === undefined) throw new NotFoundError(`There is no job ${jobId}.`);
    throw new MillraceError('CONFLICT', `Job ${jobId} has already ended: ${result.status}.`);
  }

  private async store(graph: JobGraph, options: { readonly idempotencyKey?: string }): Promise<SubmitResult> {
    let result: SubmitResult;
    try {
      result = await this.fenced(() => this.deps.graphs.submit(graph, this.token, options));
    } catch (error) {
      // It may be stored all the same: then it was promised, whether or not the client asks again.
      if (isMillraceError(error, 'UNKNOWN_OUTCOME'))
        this.background.run('look for a doubtful submission', () => this.adoptUnknown());
      throw error;
    }
    if (this.closed.signal.aborted) return result; // Durable: the next leader runs it.
    if (result.outcome === 'created') {
      this.log.info({ jobId: graph.jobId, name: graph.name }, 'job submitted');
      this.start(graph, { cancelRequested: false });
    } else if (!this.knows(result.jobId)) {
      this.background.run('start a job found by its second submission', () => this.adoptUnknown());
    }
    return result;
  }

  private async recover(): Promise<void> {
    const startedMs = this.deps.clock.nowMs();
    const [results, stored] = await this.patiently('list jobs', () =>
      Promise.all([this.deps.results.list(), this.deps.graphs.list()]),
    );
    if (this.closed.signal.aborted) return;
    for (const result of results) this.ended.set(result.jobId, result);
    const open = stored.filter(({ jobId }) => !this.ended.has(jobId));
    for (const job of open) this.jobs.set(job.jobId, { kind: 'starting', stored: job });
    this.recovered = true;
    this.log.info(
      { jobs: open.length, results: results.length, tookMs: Math.round(this.deps.clock.nowMs() - startedMs) },
      'jobs listed',
    );
    for (const { jobId, dirty } of results)
      if (dirty) this.background.run('finish a clean-up', () => this.cleanUp(jobId));
    this.background.run('recover jobs', () => this.startAll(open));
  }

  private async startAll(stored: readonly StoredJob[]): Promise<void> {
    const queue = [...stored];
    const worker = async () => {
      for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
        const outcome = await this.tryStart(job);
        if (outcome !== 'started') this.background.run('retry a broken job', () => this.keepTrying(job));
      }
    };
    await Promise.all(Array.from({ length: LOADS_AT_ONCE }, worker));
  }

  /** Starts what is stored and not known here: after a lost answer, or a submission that came twice. */
  private async adoptUnknown(): Promise<void> {
    const stored = await this.patiently('list jobs again', () => this.deps.graphs.list());
    const unknown = stored.filter(({ jobId }) => !this.knows(jobId));
    for (const job of unknown) this.jobs.set(job.jobId, { kind: 'starting', stored: job });
    await this.startAll(unknown);
  }

  private async tryStart(stored: StoredJob): Promise<'started' | 'broken'> {
    const { jobId } = stored;
    try {
      const graph = await this.deps.graphs.load(jobId);
      const job = this.jobs.get(jobId);
      // Cancelled while broken, or the term has ended.
      if (this.closed.signal.aborted || job === undefined || job.kind === 'running') return 'started';
      this.start(graph, stored);
      this.log.info({ jobId, name: graph.name }, 'job recovered');
      return 'started';
    } catch (thrown) {
      const error = asError(thrown);
      const job = this.jobs.get(jobId);
      if (this.closed.signal.aborted || job === undefined || job.kind === 'running') return 'started';
      const sinceMs = job.kind === 'broken' ? job.sinceMs : this.deps.clock.wallMs();
      if (job.kind !== 'broken') this.log.error({ jobId, err: error }, 'job cannot be recovered; it is retried');
      this.jobs.set(jobId, { kind: 'broken', stored, error, sinceMs });
      return 'broken';
    }
  }

  private async keepTrying(stored: StoredJob): Promise<void> {
    for (let attempt = 0; !this.closed.signal.aborted; attempt++) {
      await sleep(this.deps.clock, backoffMs(PATIENT, attempt, this.deps.random), this.closed.signal);
      if (this.jobs.get(stored.jobId)?.kind !== 'broken') return;
      if ((await this.tryStart(stored)) === 'started') return;
    }
  }

  private start(graph: JobGraph, options: { readonly cancelRequested: boolean }): void {
    // D2; and a doubtful submission may have been found and started already.
    const started = this.jobs.get(graph.jobId)?.kind === 'running';
    if (started || this.closed.signal.aborted || this.ended.has(graph.jobId)) return;
    const master = this.deps.jobMasters.start(graph, this.token, { cancelRequested: options.cancelRequested });
    if (this.suspended) master.suspend();
    this.jobs.set(graph.jobId, { kind: 'running', master });
    this.background.run('wait for the end of a job', async () => {
      const outcome = await Promise.race([master.terminated, this.untilClosed()]);
      if (outcome !== undefined) await this.finish(outcome);
    });
  }

  private untilClosed(): Promise<undefined> {
    return new Promise((resolve) => {
      if (this.closed.signal.aborted) resolve(undefined);
      this.closed.signal.addEventListener('abort', () => resolve(undefined), { once: true });
    });
  }

  private endBroken(job: TermJob & { kind: 'broken' }, status: 'CANCELED'): void {
    const nowMs = this.deps.clock.wallMs();
    const details = {
      ...brokenJobView(job.stored, job.error, job.sinceMs, nowMs),
      status,
      endMs: nowMs,
      waitingFor: undefined,
    };
    this.background.run('end a broken job', () =>
      this.finish({ jobId: job.stored.jobId, status, error: undefined, details }),
    );
  }

  /** Repeated until it is durable: an end that is not recorded has not happened. */
  private async finish({ jobId, status, error, details }: JobOutcome): Promise<void> {
    const result: JobResult = { jobId, name: details.name, status, error, endedWallMs: this.deps.clock.wallMs() };
    await this.patiently('record the end of a job', () => this.deps.results.complete(result, details, this.token));
    if (this.closed.signal.aborted) return;
    const job = this.jobs.get(jobId);
    this.ended.set(jobId, { ...result, overview: details });
    this.jobs.delete(jobId);
    this.log.info({ jobId, status }, 'job ended');
    if (job?.kind === 'running') await job.master.close();
    await this.cleanUp(jobId);
    await this.forgetOld();
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
        return job.master.details();
      case 'broken':
        return brokenJobView(job.stored, job.error, job.sinceMs, this.deps.clock.wallMs());
      case 'starting': {
        const nowMs = this.deps.clock.wallMs();
        const view = brokenJobView(job.stored, new Error('starting'), nowMs, nowMs);
        const exceptions = { root: undefined, history: [], truncated: false };
        return { ...view, status: 'INITIALIZING', exceptions, waitingFor: 'its job graph is being read' };
      }
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
