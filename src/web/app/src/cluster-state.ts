import {
  type Checkpoints,
  type Exceptions,
  getJson,
  type Ha,
  HttpError,
  type Job,
  type JobRow,
  type Overview,
  type TaskManager,
} from './api.ts';

/** Everything that the page shows at one moment. What could not be read keeps its last value. */
export interface ClusterState {
  /** The master that answered last. */
  readonly base: string;
  readonly connection:
    | { readonly kind: 'live' }
    | { readonly kind: 'election'; readonly reason: string; readonly sinceMs: number }
    | { readonly kind: 'away'; readonly reason: string; readonly sinceMs: number };
  readonly ha: Ha | undefined;
  readonly overview: Overview | undefined;
  readonly taskManagers: readonly TaskManager[];
  readonly jobs: readonly JobRow[];
  readonly job:
    | { readonly details: Job; readonly checkpoints: Checkpoints; readonly exceptions: Exceptions }
    | undefined;
  readonly updatedMs: number;
}

/** The origin that served the page; relative to it REST is found. */
const HOME = new URL('.', window.location.href).href.replace(/\/$/, '');

export const INITIAL: ClusterState = {
  base: HOME,
  connection: { kind: 'away', reason: 'connecting', sinceMs: Date.now() },
  ha: undefined,
  overview: undefined,
  taskManagers: [],
  jobs: [],
  job: undefined,
  updatedMs: 0,
};

/**
 * One round of asking. The master that served the page may die: then the others, known from the last
 * answer, are asked, and the page goes on as if nothing had happened.
 */
export async function refresh(previous: ClusterState, jobId: string | undefined): Promise<ClusterState> {
  const bases = [previous.base, HOME, ...(previous.ha?.replicas.map((replica) => replica['rest-url']) ?? [])];
  let reason = 'no master answers';
  for (const base of new Set(bases)) {
    let ha: Ha;
    try {
      ha = await getJson<Ha>(base, '/ha');
    } catch (error) {
      reason = `${base} does not answer: ${messageOf(error)}`;
      continue;
    }
    return await readAll({ ...previous, base, ha }, jobId);
  }
  return { ...previous, connection: { kind: 'away', reason, sinceMs: since(previous, 'away') } };
}

async function readAll(state: ClusterState, jobId: string | undefined): Promise<ClusterState> {
  const { base } = state;
  try {
    const [overview, { taskmanagers }, { jobs }] = await Promise.all([
      getJson<Overview>(base, '/overview'),
      getJson<{ taskmanagers: TaskManager[] }>(base, '/taskmanagers'),
      getJson<{ jobs: JobRow[] }>(base, '/jobs/overview'),
    ]);
    const job = jobId === undefined ? undefined : await readJob(base, jobId);
    const updatedMs = Date.now();
    return { ...state, connection: { kind: 'live' }, overview, taskManagers: taskmanagers, jobs, job, updatedMs };
  } catch (error) {
    // A master is up but there is no leader to ask: an election, or a leader that is still recovering.
    const sinceMs = since(state, 'election');
    return { ...state, connection: { kind: 'election', reason: messageOf(error), sinceMs } };
  }
}

async function readJob(base: string, jobId: string): Promise<ClusterState['job']> {
  try {
    const [details, checkpoints, exceptions] = await Promise.all([
      getJson<Job>(base, `/jobs/${jobId}`),
      getJson<Checkpoints>(base, `/jobs/${jobId}/checkpoints`),
      getJson<Exceptions>(base, `/jobs/${jobId}/exceptions`),
    ]);
    return { details, checkpoints, exceptions };
  } catch (error) {
    if (error instanceof HttpError && error.status === 404) return undefined;
    throw error;
  }
}

function since(state: ClusterState, kind: 'election' | 'away'): number {
  return state.connection.kind === kind ? state.connection.sinceMs : Date.now();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
