import type {
  CheckpointTrigger,
  DispatcherGateway,
  OperationView,
  RunJarRequest,
  SavepointTrigger,
  SubmitResult,
} from '../contracts/dispatcher-gateway.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { isTerminalJobStatus } from '../contracts/job-status.ts';
import type { Leadership } from '../contracts/leadership.ts';
import type { OperationStore, SavepointStore, TriggerId } from '../contracts/operations.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline } from '../contracts/task.ts';
import type { ClusterOverview, JarView, JobDetailsView, JobOverviewView, TaskManagerView } from '../contracts/views.ts';
import { assert } from '../kernel/assert.ts';
import type { Clock } from '../kernel/clock.ts';
import { NotLeaderError, UnavailableError } from '../kernel/errors.ts';
import { type FencingToken, type JarId, type JobId, newJobId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { DispatcherTerm, type TermOptions } from './dispatcher-term.ts';
import { JobOperations } from './job-operations.ts';
import type { JarStore, JobGraphStore, JobMasterFactory, JobResultStore, ProgramPlanner } from './ports.ts';

export interface DispatcherDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly graphs: JobGraphStore;
  readonly results: JobResultStore;
  readonly jars: JarStore;
  readonly operations: OperationStore;
  readonly savepoints: SavepointStore;
  readonly planner: ProgramPlanner;
}

/** What exists only while this replica leads. */
export interface TermServices {
  readonly jobMasters: JobMasterFactory;
  readonly listTaskManagers: () => readonly TaskManagerView[];
  /** Workers forget the job; called for one that ends without a JobMaster. */
  readonly releaseJob: (jobId: JobId) => Promise<void>;
}

interface Present {
  readonly term: DispatcherTerm;
  readonly services: TermServices;
  readonly operations: JobOperations;
}

/**
 * Accepts jobs, keeps them, runs them, and answers for them: while it leads. Between terms every
 * method rejects with `NOT_LEADER`.
 */
export class Dispatcher implements DispatcherGateway {
  private present: Present | undefined;

  constructor(
    private readonly deps: DispatcherDeps,
    private readonly options: TermOptions,
  ) {}

  /** Leadership was granted: begins to recover at once. The former term must have ended. */
  beginTerm(leadership: Leadership, services: TermServices): void {
    assert(this.present === undefined, 'a term begins when the former has ended');
    const { clock, random, log, graphs, results } = this.deps;
    const { jobMasters, releaseJob } = services;
    const term = new DispatcherTerm(
      { clock, random, log, graphs, results, jobMasters, releaseJob },
      leadership,
      this.options,
    );
    const operations = new JobOperations({
      clock,
      random,
      log,
      operations: this.deps.operations,
      savepoints: this.deps.savepoints,
      token: leadership.token,
      jobOf: (jobId) => term.operated(jobId),
      fenced: (work) => term.fenced(work),
    });
    this.present = { term, services, operations };
  }

  /** Whether this job is to run in the present term and has no master yet: what workers hold for it is its own. */
  awaitsMaster(jobId: JobId): boolean {
    return this.present?.term.awaitsMaster(jobId) ?? false;
  }

  suspend(): void {
    this.present?.term.suspend();
  }

  resume(): void {
    this.present?.term.resume();
  }

  /** Leadership is over: resolves when nothing of the term is left. Tasks on workers go on. */
  async endTerm(): Promise<void> {
    const { present } = this;
    this.present = undefined;
    await Promise.all([present?.term.close(), present?.operations.close()]);
  }

  async submitJob(graph: JobGraph, options: { readonly idempotencyKey?: string }): Promise<SubmitResult> {
    return await this.leading().term.submit(graph, options);
  }

  async uploadJar(name: string, bytes: Uint8Array): Promise<JarView> {
    this.leading();
    const { entries } = await this.deps.planner.inspect(name, bytes);
    const { term } = this.leading();
    return await term.fenced(() => this.deps.jars.put(name, bytes, entries, term.token));
  }

  async listJars(): Promise<readonly JarView[]> {
    this.leading();
    return await this.deps.jars.list();
  }

  async deleteJar(jarId: JarId): Promise<void> {
    const { term } = this.leading();
    await term.fenced(() => this.deps.jars.delete(jarId, term.token));
  }

  async runJar(jarId: JarId, request: RunJarRequest): Promise<SubmitResult> {
    const known = await this.alreadySubmitted(request);
    if (known !== undefined) return { jobId: known, outcome: 'duplicate' };
    const graph = await this.planJar(jarId, request);
    const key = request.idempotencyKey;
    return await this.submitJob(graph, key === undefined ? {} : { idempotencyKey: key });
  }

  async planJar(jarId: JarId, request: RunJarRequest): Promise<JobGraph> {
    this.leading();
    const { savepointPath } = request;
    // Before the program runs: a path that cannot be is told at once.
    const restore = savepointPath === undefined ? {} : { savepointPath: this.deps.savepoints.resolve(savepointPath) };
    const jar = await this.deps.jars.get(jarId);
    return await this.deps.planner.plan(jar, { ...request, ...restore }, request.jobId ?? newJobId(this.deps.random));
  }

  async listJobs(): Promise<readonly JobOverviewView[]> {
    return this.leading().term.list();
  }

  async requestJob(jobId: JobId): Promise<JobDetailsView> {
    return await this.leading().term.details(jobId);
  }

  async cancelJob(jobId: JobId): Promise<void> {
    await this.leading().term.cancel(jobId);
  }

  async triggerSavepoint(jobId: JobId, trigger: SavepointTrigger): Promise<TriggerId> {
    return await this.leading().operations.savepoint(jobId, trigger);
  }

  async triggerCheckpoint(jobId: JobId, trigger: CheckpointTrigger): Promise<TriggerId> {
    return await this.leading().operations.checkpoint(jobId, trigger);
  }

  async disposeSavepoint(path: string, triggerId?: TriggerId): Promise<TriggerId> {
    return await this.leading().operations.dispose(path, triggerId);
  }

  async requestOperation(jobId: JobId, kind: 'SAVEPOINT' | 'CHECKPOINT', triggerId: TriggerId): Promise<OperationView> {
    return await this.leading().operations.status(jobId, kind, triggerId);
  }

  async requestDisposal(triggerId: TriggerId): Promise<OperationView> {
    return await this.leading().operations.disposal(triggerId);
  }

  async clusterOverview(): Promise<ClusterOverview> {
    const { term, services } = this.leading();
    const workers = services.listTaskManagers();
    const jobs = term.list();
    const ended = (status: string) => jobs.filter((job) => job.status === status).length;
    return {
      taskManagers: workers.length,
      slotsTotal: workers.reduce((sum, worker) => sum + worker.slotsTotal, 0),
      slotsFree: workers.reduce((sum, worker) => sum + worker.slotsFree, 0),
      jobsRunning: jobs.filter((job) => !isTerminalJobStatus(job.status)).length,
      jobsFinished: ended('FINISHED'),
      jobsCancelled: ended('CANCELED'),
      jobsFailed: ended('FAILED'),
    };
  }

  async listTaskManagers(): Promise<readonly TaskManagerView[]> {
    return this.leading().services.listTaskManagers();
  }

  /** A worker's word on a task. `known: false` tells it to end the attempt. */
  async updateTaskState(report: AttemptReport, token: FencingToken): Promise<{ known: boolean }> {
    const master = this.addressee(report.jobId, token);
    return { known: master?.updateTaskState(report) ?? false };
  }

  async acknowledgeCheckpoint(ack: CheckpointAck, token: FencingToken): Promise<Record<string, never>> {
    this.addressee(ack.jobId, token)?.acknowledgeCheckpoint(ack);
    return {};
  }

  async declineCheckpoint(decline: CheckpointDecline, token: FencingToken): Promise<Record<string, never>> {
    this.addressee(decline.jobId, token)?.declineCheckpoint(decline);
    return {};
  }

  /** Undefined only when the job is certainly none of ours; in doubt the worker is asked to repeat. */
  private addressee(jobId: JobId, token: FencingToken) {
    const { term } = this.leading();
    if (term.token !== token) throw new NotLeaderError(`This master leads under token ${term.token}, not ${token}.`);
    const master = term.jobMaster(jobId);
    if (master === 'not-running') throw new UnavailableError(`Job ${jobId} is not running yet.`);
    return master;
  }

  /** A repeated submission is answered without running the program again. */
  private async alreadySubmitted(request: RunJarRequest): Promise<JobId | undefined> {
    const { term } = this.leading();
    if (request.jobId !== undefined && term.knows(request.jobId)) return request.jobId;
    if (request.idempotencyKey === undefined) return undefined;
    const known = await this.deps.graphs.findByIdempotencyKey(request.idempotencyKey);
    if (known !== undefined) await term.learnOf(known);
    return known;
  }

  private leading(): Present {
    if (this.present === undefined) {
      throw new NotLeaderError('This master does not lead.', { hint: 'Repeat the request in a second.' });
    }
    this.present.term.mustLead();
    return this.present;
  }
}
