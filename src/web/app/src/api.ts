/** What the dashboard reads of REST. Field names are Flink's, except under `/ha`. */

export interface Ha {
  readonly self: { readonly id: string; readonly role: 'leader' | 'standby'; readonly version: string };
  readonly leader: {
    readonly id: string;
    readonly token: string;
    readonly 'rest-url': string;
    readonly 'elected-at': number;
  } | null;
  readonly replicas: readonly {
    readonly id: string;
    readonly 'rest-url': string;
    readonly role: 'leader' | 'standby';
    readonly 'started-at': number;
  }[];
  readonly events: readonly {
    readonly timestamp: number;
    readonly kind: string;
    readonly replica: string | null;
    readonly token: string | null;
    readonly detail: string;
  }[];
}

export interface Overview {
  readonly taskmanagers: number;
  readonly 'slots-total': number;
  readonly 'slots-available': number;
  readonly 'jobs-running': number;
  readonly 'jobs-finished': number;
  readonly 'jobs-cancelled': number;
  readonly 'jobs-failed': number;
}

export interface TaskManager {
  readonly id: string;
  readonly path: string;
  readonly pid: number;
  readonly slotsNumber: number;
  readonly freeSlots: number;
  readonly timeSinceLastHeartbeat: number;
}

export interface JobRow {
  readonly jid: string;
  readonly name: string;
  readonly state: string;
  readonly 'start-time': number;
  readonly duration: number;
  readonly tasks: Readonly<Record<string, number>>;
}

export interface Vertex {
  readonly id: string;
  readonly name: string;
  readonly parallelism: number;
  readonly status: string;
  readonly duration: number;
  readonly tasks: Readonly<Record<string, number>>;
  readonly metrics: Readonly<Record<string, number | boolean>>;
}

export interface Job extends JobRow {
  readonly vertices: readonly Vertex[];
  readonly restarts: number;
  readonly 'waiting-for': string | null;
}

export interface Checkpoint {
  readonly id: number;
  readonly status: string;
  readonly trigger_timestamp: number;
  readonly end_to_end_duration: number;
  readonly state_size: number;
  readonly num_subtasks: number;
  readonly num_acknowledged_subtasks: number;
  readonly failure_message?: string;
}

export interface Checkpoints {
  readonly counts: Readonly<Record<'restored' | 'total' | 'in_progress' | 'completed' | 'failed', number>>;
  readonly latest: { readonly restored: { readonly id: number; readonly restore_timestamp: number } | null };
  readonly history: readonly Checkpoint[];
}

export interface Exceptions {
  readonly exceptionHistory: {
    readonly entries: readonly {
      readonly exceptionName: string;
      readonly stacktrace: string;
      readonly timestamp: number;
      readonly taskName: string | null;
      readonly taskManagerId: string | null;
    }[];
  };
}

export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export async function getJson<T>(base: string, path: string): Promise<T> {
  const response = await fetch(`${base}${path}`, { signal: AbortSignal.timeout(3_000), cache: 'no-store' });
  if (response.ok) return (await response.json()) as T;
  const body = (await response.json().catch(() => ({}))) as { errors?: string[] };
  throw new HttpError(response.status, body.errors?.join(' ') ?? `HTTP ${response.status}`);
}

export async function cancelJob(base: string, jobId: string): Promise<void> {
  const response = await fetch(`${base}/jobs/${jobId}?mode=cancel`, { method: 'PATCH' });
  if (!response.ok) throw new HttpError(response.status, await response.text());
}
