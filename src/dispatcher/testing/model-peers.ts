import type { RunJarRequest } from '../../contracts/dispatcher-gateway.ts';
import { JOB_GRAPH_FORMAT, type JobGraph } from '../../contracts/job-graph.ts';
import type { JobMasterHandle, JobOutcome } from '../../contracts/job-master.ts';
import type { TerminalJobStatus } from '../../contracts/job-status.ts';
import type { CheckpointOperation } from '../../contracts/operations.ts';
import type { AttemptReport } from '../../contracts/task.ts';
import type { JobDetailsView } from '../../contracts/views.ts';
import { MillraceError } from '../../kernel/errors.ts';
import { type FencingToken, type JobId, asJobId, asOperatorId, asVertexId } from '../../kernel/ids.ts';
import { brokenJobView } from '../job-views.ts';
import type { JobMasterFactory, JobMasterStart, ProgramPlanner, StoredJar } from '../ports.ts';

export const jobIdOf = (n: number): JobId => asJobId(n.toString(16).padStart(32, '0'));

/** The smallest job there is. */
export function graphOf(n: number, changes: Partial<JobGraph> = {}): JobGraph {
  const id = 'a'.repeat(32);
  return {
    formatVersion: JOB_GRAPH_FORMAT,
    jobId: jobIdOf(n),
    name: `job ${n}`,
    vertices: [
      {
        id: asVertexId(id),
        name: 'Source',
        parallelism: 1,
        maxParallelism: 128,
        slotSharingGroup: 'default',
        operators: [{ id: asOperatorId(id), name: 'Source', kind: 'source', inputs: [], splits: [{ from: 0, to: 9 }] }],
      },
    ],
    edges: [],
    config: {
      checkpointing: {
        intervalMs: 1_000,
        mode: 'EXACTLY_ONCE',
        timeoutMs: 60_000,
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
    bundle: { kind: 'inline', programId: 'test' },
    fingerprint: 'f',
    submittedWallMs: 1_700_000_000_000 + n,
    ...changes,
  };
}

export function detailsOf(graph: JobGraph, status: JobDetailsView['status']): JobDetailsView {
  const stored = { ...graph, cancelRequested: false };
  const view = brokenJobView(stored, new Error('none'), graph.submittedWallMs, graph.submittedWallMs);
  return {
    ...view,
    status,
    waitingFor: undefined,
    config: graph.config,
    exceptions: { root: undefined, history: [], truncated: false },
  };
}

/** A JobMaster that does nothing until it is told how its job ends. */
export class ModelJobMaster implements JobMasterHandle {
  readonly jobId: JobId;
  readonly terminated: Promise<JobOutcome>;
  readonly reports: AttemptReport[] = [];
  readonly operations: CheckpointOperation[] = [];
  cancelled = false;
  suspended = false;
  closed = false;
  private status: JobDetailsView['status'] = 'RUNNING';
  private resolve: (outcome: JobOutcome) => void = () => {};

  constructor(
    readonly graph: JobGraph,
    readonly token: FencingToken,
    readonly cancelRequested: boolean,
  ) {
    this.jobId = graph.jobId;
    this.terminated = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  end(status: TerminalJobStatus): void {
    this.status = status;
    const error = status === 'FAILED' ? { code: 'USER_CODE' as const, message: 'it threw' } : undefined;
    this.resolve({ jobId: this.jobId, status, error, details: this.details() });
  }

  cancel(): void {
    this.cancelled = true;
  }

  details(): JobDetailsView {
    return detailsOf(this.graph, this.status);
  }

  suspend(): void {
    this.suspended = true;
  }

  resume(): void {
    this.suspended = false;
  }

  updateTaskState(report: AttemptReport): boolean {
    this.reports.push(report);
    return true;
  }

  requestCheckpoint(operation: CheckpointOperation): void {
    this.operations.push(operation);
  }

  acknowledgeCheckpoint(): void {}

  declineCheckpoint(): void {}

  async close(): Promise<void> {
    this.closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Remembers every JobMaster that it ever made. */
export class ModelJobMasters implements JobMasterFactory {
  readonly all: ModelJobMaster[] = [];
  /** Throws instead of starting, when set. */
  failure: Error | undefined;

  start(graph: JobGraph, token: FencingToken, options: JobMasterStart): ModelJobMaster {
    if (this.failure !== undefined) throw this.failure;
    const master = new ModelJobMaster(graph, token, options.cancelRequested);
    this.all.push(master);
    return master;
  }

  get live(): readonly ModelJobMaster[] {
    return this.all.filter((master) => !master.closed);
  }

  /** The only live one of a job; throws when there is none or are several. */
  of(jobId: JobId): ModelJobMaster {
    const [master, ...others] = this.live.filter((one) => one.jobId === jobId);
    if (master === undefined || others.length > 0) throw new Error(`${others.length + 1} masters of ${jobId}`);
    return master;
  }
}

/** "Runs" a bundle whose text is the name of its only entry; `bad` does not load. */
export class ModelPlanner implements ProgramPlanner {
  plans = 0;

  async inspect(name: string, bytes: Uint8Array): Promise<{ readonly entries: readonly string[] }> {
    const text = new TextDecoder().decode(bytes);
    if (text === 'bad') throw new MillraceError('PROGRAM', `${name} does not load`);
    return { entries: [text] };
  }

  async plan(jar: StoredJar, request: RunJarRequest, jobId: JobId): Promise<JobGraph> {
    this.plans++;
    if (request.entryClass !== undefined && !jar.entries.includes(request.entryClass))
      throw new MillraceError('PROGRAM', `${jar.name} exports no ${request.entryClass}`);
    const { objectKey, digest, bytes } = jar;
    return graphOf(0, { jobId, bundle: { kind: 'object', objectKey, digest, bytes, args: [...request.programArgs] } });
  }
}
