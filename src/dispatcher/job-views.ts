import { type ExecutionState, isTerminalJobStatus, type JobStatus } from '../contracts/job-status.ts';
import { type JobDetailsView, type JobOverviewView, NO_CHECKPOINTS, type StateCounts } from '../contracts/views.ts';
import type { JobResult, StoredJob } from './ports.ts';

/** Views of jobs that have no JobMaster to ask: as much as is known, and the reason. */

const NO_TASKS: StateCounts = {
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
} satisfies Record<ExecutionState, number>;

const NEVER: Readonly<Record<JobStatus, number>> = {
  INITIALIZING: 0,
  CREATED: 0,
  RUNNING: 0,
  FAILING: 0,
  FAILED: 0,
  CANCELLING: 0,
  CANCELED: 0,
  FINISHED: 0,
  RESTARTING: 0,
  SUSPENDED: 0,
  RECONCILING: 0,
};

/** A job that is promised to run and cannot be started now. It is retried; the state says so. */
export function brokenJobView(job: StoredJob, error: Error, sinceMs: number, nowMs: number): JobDetailsView {
  return {
    ...emptyView(job.jobId, job.name),
    status: 'RESTARTING',
    startMs: job.submittedWallMs,
    durationMs: nowMs - job.submittedWallMs,
    lastModificationMs: sinceMs,
    timestamps: { ...NEVER, INITIALIZING: job.submittedWallMs, RESTARTING: sinceMs },
    exceptions: exceptionsOf(error, sinceMs),
    waitingFor: `the job cannot be recovered and is retried: ${error.message}`,
  };
}

/** One that was cancelled instead of being retried for ever. */
export function cancelledJobView(job: StoredJob, error: Error, sinceMs: number, nowMs: number): JobDetailsView {
  return { ...brokenJobView(job, error, sinceMs, nowMs), status: 'CANCELED', endMs: nowMs, waitingFor: undefined };
}

/** A job that has ended, when the object with its details cannot be read any more. */
export function endedJobView(result: JobResult): JobDetailsView {
  return {
    ...emptyView(result.jobId, result.name),
    status: result.status,
    startMs: -1,
    endMs: result.endedWallMs,
    lastModificationMs: result.endedWallMs,
    timestamps: { ...NEVER, [result.status]: result.endedWallMs },
    exceptions:
      result.error === undefined
        ? NO_EXCEPTIONS
        : exceptionsOf(
            Object.assign(new Error(result.error.message), { stack: result.error.stack }),
            result.endedWallMs,
          ),
  };
}

const NO_EXCEPTIONS: JobDetailsView['exceptions'] = { root: undefined, history: [], truncated: false };

function exceptionsOf(error: Error, timestampMs: number): JobDetailsView['exceptions'] {
  const entry = {
    name: error.name,
    message: error.message,
    stack: error.stack ?? error.message,
    timestampMs,
    taskName: undefined,
    taskManagerId: undefined,
    location: undefined,
  };
  return { root: entry, history: [entry], truncated: false };
}

function emptyView(jobId: JobResult['jobId'], name: string): JobDetailsView {
  return {
    jobId,
    name,
    status: 'INITIALIZING',
    startMs: -1,
    endMs: -1,
    durationMs: 0,
    lastModificationMs: 0,
    tasks: NO_TASKS,
    maxParallelism: -1,
    timestamps: NEVER,
    vertices: [],
    edges: [],
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
      bufferTimeoutMs: 0,
      recoveryFallback: 'none',
      userConfig: {},
    },
    exceptions: NO_EXCEPTIONS,
    checkpoints: NO_CHECKPOINTS,
    restarts: 0,
    waitingFor: undefined,
  };
}

/** A job whose graph is being read. */
export function startingJobView(job: StoredJob, nowMs: number): JobDetailsView {
  return {
    ...emptyView(job.jobId, job.name),
    startMs: job.submittedWallMs,
    durationMs: nowMs - job.submittedWallMs,
    lastModificationMs: job.submittedWallMs,
    timestamps: { ...NEVER, INITIALIZING: job.submittedWallMs },
    waitingFor: 'its job graph is being read',
  };
}

/** What has happened but is not recorded is shown as what led to it: a new leader may run it again. */
export function notYetEnded(view: JobDetailsView): JobDetailsView {
  if (!isTerminalJobStatus(view.status)) return view;
  const before = { FINISHED: 'RUNNING', CANCELED: 'CANCELLING', FAILED: 'FAILING' } as const;
  return { ...view, status: before[view.status], endMs: -1, waitingFor: 'the record of its end' };
}

/** Only what lists show: the details of a thousand ended jobs are not kept in memory. */
export function overviewOf(details: JobDetailsView): JobOverviewView {
  const { jobId, name, status, startMs, endMs, durationMs, lastModificationMs, tasks } = details;
  return { jobId, name, status, startMs, endMs, durationMs, lastModificationMs, tasks };
}
