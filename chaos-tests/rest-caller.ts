import { setTimeout as wait } from 'node:timers/promises';
import type { JobStatus } from '../src/contracts/job-status.ts';
import { isTerminalJobStatus } from '../src/contracts/job-status.ts';
import type { LocalCluster, Master } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Parsed JSON. */
  readonly body: Record<string, unknown>;
  /** All of `errors`, in one text. */
  readonly errors: string;
}

const PATIENCE_MS = 60_000;

/** Speaks to masters as a well-behaved HTTP client: what is answered 503 with `Retry-After` is asked again. */
export class RestCaller {
  constructor(private readonly cluster: LocalCluster) {}

  /** Asks `master`, by default the first that lives; during elections again and again. */
  async call(method: string, path: string, init: RequestInit = {}, master?: Master): Promise<Answer> {
    const deadlineMs = performance.now() + PATIENCE_MS;
    for (;;) {
      const answer = await this.once(method, path, init, master);
      const retryAfterS = answer.headers.get('retry-after');
      if (answer.status !== 503 || retryAfterS === null || performance.now() > deadlineMs) return answer;
      await wait(Number(retryAfterS) * 1_000);
    }
  }

  /** Asks once, and gives whatever the answer is. */
  async once(method: string, path: string, init: RequestInit = {}, master?: Master): Promise<Answer> {
    const address = (master ?? this.cluster.liveMasters[0])?.restUrl;
    if (address === undefined) throw new Error('no master is alive');
    const response = await fetch(`${address}${path}`, { method, signal: AbortSignal.timeout(60_000), ...init });
    const body = JSON.parse((await response.text()) || '{}') as Record<string, unknown>;
    const errors = Array.isArray(body.errors) ? body.errors.join('\n') : '';
    return { status: response.status, headers: response.headers, body, errors };
  }

  upload(name: string, content: Uint8Array | string): Promise<Answer> {
    const form = new FormData();
    form.append('jarfile', new Blob([typeof content === 'string' ? content : new Uint8Array(content)]), name);
    return this.call('POST', '/jars/upload', { body: form });
  }

  /** Uploads what must be accepted; resolves with the jar's id. */
  async jar(name: string, content: Uint8Array | string): Promise<string> {
    const answer = await this.upload(name, content);
    if (answer.status !== 200) throw new Error(`${name} was refused: ${answer.errors}`);
    return String(answer.body.filename).split('/').at(-1) ?? '';
  }

  run(jarId: string, body: object, headers: Record<string, string> = {}, master?: Master): Promise<Answer> {
    const init = { body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } };
    return this.call('POST', `/jars/${encodeURIComponent(jarId)}/run`, init, master);
  }

  /** Resolves when the job has ended, with its final state. Elections on the way are waited for. */
  async end(jobId: string): Promise<JobStatus> {
    const { state } = await until(
      `job ${jobId} to end`,
      async () => {
        const { body } = await this.call('GET', `/jobs/${jobId}`);
        const job = { state: body.state as JobStatus };
        return body.state !== undefined && isTerminalJobStatus(job.state) ? job : undefined;
      },
      { timeoutMs: 120_000, everyMs: 100 },
    );
    return state;
  }

  /** The ids of all jobs and jars that the cluster admits to. */
  async inventory(): Promise<{ jobs: string[]; jars: string[] }> {
    const jobs = (await this.call('GET', '/jobs')).body.jobs as { id: string }[];
    const jars = (await this.call('GET', '/jars')).body.files as { id: string }[];
    return { jobs: jobs.map(({ id }) => id).sort(), jars: jars.map(({ id }) => id).sort() };
  }
}
