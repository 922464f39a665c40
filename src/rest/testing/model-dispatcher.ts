import type {
  CheckpointTrigger,
  DispatcherGateway,
  OperationView,
  RunJarRequest,
  SavepointTrigger,
  SubmitResult,
} from '../../contracts/dispatcher-gateway.ts';
import type { TriggerId } from '../../contracts/operations.ts';
import type { JobGraph } from '../../contracts/job-graph.ts';
import type { ExecutionState, JobStatus } from '../../contracts/job-status.ts';
import { NO_IO } from '../../contracts/task.ts';
import { type JarView, type JobDetailsView, NO_CHECKPOINTS, type StateCounts } from '../../contracts/views.ts';
import { MillraceError, NotFoundError, NotLeaderError } from '../../kernel/errors.ts';
import { asJarId, asJobId, asVertexId, type JarId, type JobId } from '../../kernel/ids.ts';

export const JOB_ID = asJobId('7a9c1d9061e6a926a33e58d0e8b8f530');

const counts = (state: ExecutionState, n: number): StateCounts => ({
  CREATED: 0,
  SCHEDULED: 0,
  DEPLOYING: 0,
  INITIALIZING: 0,
  RUNNING: 0,
  FINISHED: 0,
  CANCELING: 0,
  CANCELED: 0,
  FAILED: 0,
  RECONCILING: 0,
  [state]: n,
});

/** A Dispatcher as REST meets it: remembers jars, runs a job to its end at once, and can lose leadership. */
export class ModelDispatcher implements DispatcherGateway {
  leading = true;
  readonly jars = new Map<JarId, { view: JarView; bytes: Uint8Array }>();
  readonly runs: { jarId: JarId; request: RunJarRequest }[] = [];
  readonly cancelled: JobId[] = [];
  status: JobStatus = 'FINISHED';

  async submitJob(graph: JobGraph): Promise<SubmitResult> {
    this.mustLead();
    return { jobId: graph.jobId, outcome: 'created' };
  }

  async uploadJar(name: string, bytes: Uint8Array): Promise<JarView> {
    this.mustLead();
    const id = asJarId(`0000-${this.jars.size}_${name}`);
    const view: JarView = { id, name, uploadedMs: 5, bytes: bytes.length, entries: ['WordCount'] };
    this.jars.set(id, { view, bytes });
    return view;
  }

  async listJars(): Promise<readonly JarView[]> {
    this.mustLead();
    return [...this.jars.values()].map((jar) => jar.view);
  }

  async deleteJar(jarId: JarId): Promise<void> {
    this.mustLead();
    if (!this.jars.delete(jarId)) throw new NotFoundError(`There is no jar ${jarId}.`);
  }

  async runJar(jarId: JarId, request: RunJarRequest): Promise<SubmitResult> {
    this.mustLead();
    if (!this.jars.has(jarId)) throw new NotFoundError(`There is no jar ${jarId}.`);
    this.runs.push({ jarId, request });
    return { jobId: request.jobId ?? JOB_ID, outcome: 'created' };
  }

  async planJar(): Promise<JobGraph> {
    throw new MillraceError('PROGRAM', 'main threw: boom');
  }

  async listJobs(): Promise<readonly JobDetailsView[]> {
    this.mustLead();
    return [this.job()];
  }

  async requestJob(jobId: JobId): Promise<JobDetailsView> {
    this.mustLead();
    if (jobId !== JOB_ID) throw new NotFoundError(`There is no job ${jobId}.`);
    return this.job();
  }

  async cancelJob(jobId: JobId): Promise<void> {
    this.mustLead();
    if (jobId !== JOB_ID) throw new NotFoundError(`There is no job ${jobId}.`);
    if (this.status === 'FINISHED') throw new MillraceError('CONFLICT', `Job ${jobId} has ended: FINISHED.`);
    this.cancelled.push(jobId);
  }

  readonly operations = new Map<TriggerId, { readonly kind: string; readonly request: unknown; view: OperationView }>();

  async triggerSavepoint(jobId: JobId, trigger: SavepointTrigger): Promise<TriggerId> {
    await this.runningJob(jobId);
    if (trigger.targetDirectory?.startsWith('ftp:') === true)
      throw new MillraceError('INVALID_ARGUMENT', 'savepoints cannot be written to ftp');
    return this.begin('SAVEPOINT', trigger, trigger.triggerId);
  }

  async triggerCheckpoint(jobId: JobId, trigger: CheckpointTrigger): Promise<TriggerId> {
    await this.runningJob(jobId);
    return this.begin('CHECKPOINT', trigger, trigger.triggerId);
  }

  async disposeSavepoint(path: string, triggerId?: TriggerId): Promise<TriggerId> {
    this.mustLead();
    return this.begin('DISPOSAL', path, triggerId);
  }

  async requestOperation(_jobId: JobId, kind: string, triggerId: TriggerId): Promise<OperationView> {
    this.mustLead();
    const operation = this.operations.get(triggerId);
    if (operation?.kind !== kind) throw new NotFoundError(`There is no operation ${triggerId}.`);
    return operation.view;
  }

  async requestDisposal(triggerId: TriggerId): Promise<OperationView> {
    return await this.requestOperation(JOB_ID, 'DISPOSAL', triggerId);
  }

  private begin(kind: string, request: unknown, chosen: TriggerId | undefined): TriggerId {
    const id = chosen ?? (String(this.operations.size).padStart(32, '0') as TriggerId);
    if (!this.operations.has(id)) this.operations.set(id, { kind, request, view: { status: 'IN_PROGRESS' } });
    return id;
  }

  private async runningJob(jobId: JobId): Promise<void> {
    const { status } = await this.requestJob(jobId);
    if (status !== 'RUNNING') throw new MillraceError('CONFLICT', `Job ${jobId} is not running: ${status}.`);
  }

  async clusterOverview() {
    this.mustLead();
    return {
      taskManagers: 2,
      slotsTotal: 4,
      slotsFree: 3,
      jobsRunning: 0,
      jobsFinished: 1,
      jobsCancelled: 0,
      jobsFailed: 0,
    };
  }

  async listTaskManagers() {
    this.mustLead();
    return [];
  }

  private mustLead(): void {
    if (!this.leading)
      throw new NotLeaderError('This master does not lead.', { hint: 'Repeat the request in a second.' });
  }

  private job(): JobDetailsView {
    const vertex = (name: string, n: number) => ({
      id: asVertexId(String(n).repeat(32)),
      name,
      operators: [],
      slotSharingGroup: 'default',
      parallelism: 1,
      maxParallelism: 128,
      status: 'FINISHED' as const,
      startMs: 1_000,
      endMs: 3_000,
      durationMs: 2_000,
      tasks: counts('FINISHED', 1),
      io: NO_IO,
      subtasks: [],
    });
    return {
      jobId: JOB_ID,
      name: 'WordCount Example',
      status: this.status,
      startMs: 1_000,
      endMs: 3_000,
      durationMs: 2_000,
      lastModificationMs: 3_000,
      tasks: counts('FINISHED', 2),
      maxParallelism: 128,
      timestamps: {
        INITIALIZING: 1_000,
        CREATED: 1_000,
        RUNNING: 1_100,
        FAILING: 0,
        FAILED: 0,
        CANCELLING: 0,
        CANCELED: 0,
        FINISHED: 3_000,
        RESTARTING: 0,
        SUSPENDED: 0,
        RECONCILING: 0,
      },
      vertices: [vertex('Source: elements -> Flat Map', 1), vertex('Keyed Aggregation -> Sink: Print', 2)],
      edges: [{ source: asVertexId('1'.repeat(32)), target: asVertexId('2'.repeat(32)), partitioner: 'HASH' }],
      config: {
        checkpointing: {
          mode: 'EXACTLY_ONCE',
          timeoutMs: 600_000,
          minPauseMs: 0,
          maxConcurrent: 1,
          tolerableFailedCheckpoints: 0,
          numRetained: 1,
          externalizedRetention: 'NO_EXTERNALIZED_CHECKPOINTS',
          unaligned: false,
          alignedTimeoutMs: 0,
        },
        restartStrategy: { type: 'none' },
        bufferTimeoutMs: 20,
        recoveryFallback: 'none',
        userConfig: {},
      },
      exceptions: {
        root: {
          name: 'USER_CODE',
          message: 'boom',
          stack: 'Error: boom\n  at map',
          timestampMs: 2_500,
          taskName: 'Map (1/1)',
          taskManagerId: undefined,
          location: undefined,
        },
        history: [],
        truncated: false,
      },
      checkpoints: NO_CHECKPOINTS,
      restarts: 0,
      waitingFor: undefined,
    };
  }
}
