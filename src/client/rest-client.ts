import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, MillraceError, NotFoundError, UnavailableError } from '../kernel/errors.ts';
import type { JobStatus } from '../contracts/job-status.ts';

/** Fields of `GET /ha` that a client uses. */
export interface HaSummary {
  readonly leader: { readonly id: string; readonly token: string } | null;
}

/** Fields of `GET /jobs/:id` that a client uses; the server sends more. */
export interface JobSummary {
  readonly jid: string;
  readonly name: string;
  readonly state: JobStatus;
  readonly 'start-time': number;
  readonly duration: number;
  readonly tasks?: Readonly<Record<string, number>>;
}

/** `GET /jobs/:id/savepoints/:triggerid` and its like. */
export interface OperationStatus {
  readonly status: { readonly id: 'IN_PROGRESS' | 'COMPLETED' };
  readonly operation: {
    readonly location?: string;
    readonly 'failure-cause'?: { readonly 'stack-trace'?: string };
  } | null;
}

export interface RestClientOptions {
  /** Base URLs of one or more masters; any of them answers, the next is asked when one is away. */
  readonly addresses: readonly string[];
  /** How long a request is repeated while no master answers (an election takes a few seconds at most). */
  readonly patienceMs: number;
}

/**
 * Speaks Flink's REST dialect to whichever master answers. Requests are repeated over connection
 * errors and 503 until `patienceMs` is over; every mutation sent through it is safe to repeat,
 * because job ids are chosen here.
 */
export class RestClient {
  private preferred = 0;
  private readonly clock: Clock;
  private readonly options: RestClientOptions;

  constructor(clock: Clock, options: RestClientOptions) {
    this.clock = clock;
    this.options = options;
  }

  async uploadJar(fileName: string, bytes: Uint8Array): Promise<string> {
    const answer = await this.request<{ filename: string }>('POST', '/jars/upload', () => {
      const form = new FormData();
      form.append('jarfile', new Blob([new Uint8Array(bytes)], { type: 'text/javascript' }), fileName);
      return { body: form, headers: {} };
    });
    return answer.filename.split('/').at(-1) ?? answer.filename;
  }

  async runJar(jarId: string, body: object): Promise<string> {
    const answer = await this.json<{ jobid: string }>('POST', `/jars/${encodeURIComponent(jarId)}/run`, body);
    return answer.jobid;
  }

  async deleteJar(jarId: string): Promise<void> {
    await this.json('DELETE', `/jars/${encodeURIComponent(jarId)}`);
  }

  async listJobs(): Promise<readonly JobSummary[]> {
    return (await this.json<{ jobs: JobSummary[] }>('GET', '/jobs/overview')).jobs;
  }

  job(jobId: string): Promise<JobSummary> {
    return this.json('GET', `/jobs/${encodeURIComponent(jobId)}`);
  }

  async rootException(jobId: string): Promise<string | undefined> {
    const answer = await this.json<{ 'root-exception'?: string | null }>(
      'GET',
      `/jobs/${encodeURIComponent(jobId)}/exceptions`,
    );
    return answer['root-exception'] ?? undefined;
  }

  async cancel(jobId: string): Promise<void> {
    await this.json('PATCH', `/jobs/${encodeURIComponent(jobId)}?mode=cancel`);
  }

  /** The trigger id is chosen here, so that a repeated request is the same savepoint. */
  async triggerSavepoint(jobId: string, body: object): Promise<string> {
    return await this.trigger(`/jobs/${encodeURIComponent(jobId)}/savepoints`, body);
  }

  async stop(jobId: string, body: object): Promise<string> {
    return await this.trigger(`/jobs/${encodeURIComponent(jobId)}/stop`, body);
  }

  async disposeSavepoint(path: string, triggerId: string): Promise<string> {
    return await this.trigger('/savepoint-disposal', { 'savepoint-path': path, triggerId });
  }

  savepointStatus(jobId: string, triggerId: string): Promise<OperationStatus> {
    return this.json('GET', `/jobs/${encodeURIComponent(jobId)}/savepoints/${triggerId}`);
  }

  disposalStatus(triggerId: string): Promise<OperationStatus> {
    return this.json('GET', `/savepoint-disposal/${triggerId}`);
  }

  private async trigger(path: string, body: object): Promise<string> {
    return (await this.json<{ 'request-id': string }>('POST', path, body))['request-id'];
  }

  ha(): Promise<HaSummary> {
    return this.json('GET', '/ha');
  }

  json<T>(method: string, path: string, body?: object): Promise<T> {
    const headers: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' };
    return this.request<T>(method, path, () => ({
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
    }));
  }

  private async request<T>(
    method: string,
    path: string,
    content: () => { body: string | FormData | undefined; headers: Record<string, string> },
  ): Promise<T> {
    const deadlineMs = this.clock.nowMs() + this.options.patienceMs;
    for (;;) {
      const address = this.options.addresses[this.preferred % this.options.addresses.length] ?? '';
      const outcome = await this.once<T>(address, method, path, content());
      if (outcome.kind === 'answer') return outcome.value;
      if (outcome.kind === 'refused') throw outcome.error;
      this.preferred++;
      if (this.clock.nowMs() >= deadlineMs) throw outcome.error;
      await sleep(this.clock, outcome.retryAfterMs);
    }
  }

  private async once<T>(
    address: string,
    method: string,
    path: string,
    content: { body: string | FormData | undefined; headers: Record<string, string> },
  ): Promise<
    | { kind: 'answer'; value: T }
    | { kind: 'refused'; error: MillraceError }
    | { kind: 'away'; error: MillraceError; retryAfterMs: number }
  > {
    let response: Response;
    try {
      response = await fetch(`${address}${path}`, {
        method,
        headers: content.headers,
        ...(content.body === undefined ? {} : { body: content.body }),
        signal: AbortSignal.timeout(60_000),
      });
    } catch (error) {
      return {
        kind: 'away',
        retryAfterMs: 200,
        error: new UnavailableError(`no answer from ${address}: ${asError(error).message}`, {
          cause: error,
          hint: 'Is a jobmanager running there? Name others with --jobmanager host:port,host:port.',
        }),
      };
    }
    const text = await response.text();
    if (response.ok) return { kind: 'answer', value: (text === '' ? {} : JSON.parse(text)) as T };
    const message = errorText(text) || `HTTP ${response.status}`;
    if (response.status === 503 || response.status === 502) {
      const seconds = Number(response.headers.get('retry-after') ?? '1');
      return {
        kind: 'away',
        retryAfterMs: Math.min(1_000, Number.isFinite(seconds) ? seconds * 1_000 : 1_000),
        error: new UnavailableError(`${address} answered 503: ${message}`),
      };
    }
    if (response.status === 404) return { kind: 'refused', error: new NotFoundError(message) };
    const code =
      response.status === 409
        ? 'CONFLICT'
        : response.status === 413
          ? 'TOO_LARGE'
          : response.status < 500
            ? 'INVALID_ARGUMENT'
            : 'INTERNAL';
    return { kind: 'refused', error: new MillraceError(code, message) };
  }
}

/** Flink answers errors as `{"errors": ["…"]}`. */
function errorText(body: string): string {
  try {
    const parsed = JSON.parse(body) as { errors?: unknown };
    return Array.isArray(parsed.errors) ? parsed.errors.join('\n') : body.slice(0, 1_000);
  } catch {
    // Not JSON: a proxy's page, say. Its beginning is the best message there is.
    return body.slice(0, 1_000);
  }
}

/** `host:port` or a URL, several separated by commas. */
export function parseAddresses(text: string): readonly string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const url = /^https?:\/\//.test(part) ? part : `http://${part}`;
      if (!URL.canParse(url)) throw new MillraceError('INVALID_ARGUMENT', `"${part}" is not host:port or a URL`);
      return url.replace(/\/+$/, '');
    });
}
