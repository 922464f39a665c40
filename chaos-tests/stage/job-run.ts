import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { RestClient } from '../../src/client/rest-client.ts';
import { isTerminalJobStatus, type JobStatus } from '../../src/contracts/job-status.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { newJobId } from '../../src/kernel/ids.ts';
import type { Random } from '../../src/kernel/random.ts';
import { packJob } from '../../src/program/pack.ts';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import type { LocalCluster } from '../../test-support/local-cluster.ts';
import { createS3Client, type S3Access } from '../../test-support/rgw.ts';
import { until } from '../../test-support/until.ts';
import { compareLines } from '../checkers/check-lines.ts';
import { expectedLines, type WorkloadName, type WorkloadOptions } from '../workloads/records.ts';

const PARALLELISM = 2;
const RATE_PER_SECOND = 600;
const PATIENCE_MS = 120_000;
/** Of the plan: the sources with their chains, and what is behind the exchange. */
const VERTICES: Readonly<Record<WorkloadName, number>> = { counts: 2, windows: 2, pairs: 3, forward: 1 };

export interface JobRunOptions {
  readonly cluster: LocalCluster;
  readonly workload: WorkloadName;
  readonly sink: 'files' | 's3';
  readonly seconds: number;
  readonly dir: string;
  readonly random: Random;
  readonly s3: { readonly access: S3Access; readonly bucket: string; readonly prefix: string };
}

/** One job under test: submits it, and reads what it has written. */
export class JobRun {
  readonly jobId: string;
  readonly outputFolder: string;
  readonly stampsFolder: string;
  private readonly records: number;

  constructor(private readonly options: JobRunOptions) {
    // Chosen here, so that a submission whose answer is lost can be repeated.
    this.jobId = newJobId(options.random);
    this.outputFolder = join(options.dir, 'output');
    this.stampsFolder = join(options.dir, 'stamps');
    this.records = Math.round(options.seconds * RATE_PER_SECOND);
    mkdirSync(this.outputFolder, { recursive: true });
    mkdirSync(this.stampsFolder, { recursive: true });
  }

  get tasks(): number {
    return VERTICES[this.options.workload] * PARALLELISM;
  }

  get s3Prefix(): string | undefined {
    return this.options.sink === 's3' ? this.options.s3.prefix : undefined;
  }

  rest(patienceMs = PATIENCE_MS): RestClient {
    const addresses = this.options.cluster.liveMasters.map((master) => master.restUrl);
    return new RestClient(new SystemClock(), { addresses, patienceMs });
  }

  async submit(): Promise<void> {
    const jarId = await this.upload();
    await this.run(jarId);
    await this.deleteJar(jarId);
  }

  /** The job keeps its own reference to the bundle. */
  async deleteJar(jarId: string): Promise<void> {
    await this.rest().deleteJar(jarId);
  }

  async upload(): Promise<string> {
    const { workload } = this.options;
    const bundle = await packJob(join(packageRoot(), `chaos-tests/workloads/${workload}.ts`));
    return this.rest().uploadJar(`${workload}.mjs`, bundle);
  }

  /** Repeats while nobody answers, and asks others than the one that has died. */
  async run(jarId: string): Promise<void> {
    const { sink, s3 } = this.options;
    const options: WorkloadOptions = {
      records: this.records,
      ratePerSecond: RATE_PER_SECOND,
      parallelism: PARALLELISM,
      output: sink === 's3' ? `s3://${s3.bucket}/${s3.prefix}` : this.outputFolder,
      stamps: this.stampsFolder,
    };
    await this.rest().runJar(jarId, { jobId: this.jobId, programArgsList: [JSON.stringify(options)] });
  }

  async state(): Promise<JobStatus> {
    return (await this.options.cluster.get<{ state: JobStatus }>(`/jobs/${this.jobId}`)).state;
  }

  async ended(): Promise<boolean> {
    const state = await this.state().catch(() => undefined); // Nobody leads at the moment.
    return state !== undefined && isTerminalJobStatus(state);
  }

  /** Waits for the end; resolves with what is wrong with it, and with the output at exactly that time. */
  async judgeEnd(ends: JobStatus): Promise<string[]> {
    const patience = { timeoutMs: PATIENCE_MS, everyMs: 100 };
    const state = await until(
      'the job to end',
      async () => {
        const now = await this.state().catch(() => undefined); // Nobody leads at the moment.
        return now !== undefined && isTerminalJobStatus(now) && now;
      },
      patience,
    );
    if (state !== ends) {
      const { cluster } = this.options;
      const exceptions = await cluster.get<{ 'root-exception'?: string }>(`/jobs/${this.jobId}/exceptions`);
      return [`the job ended ${state}, not ${ends}: ${exceptions['root-exception'] ?? 'no reason given'}`];
    }
    return this.judgeOutput(ends);
  }

  /** A cancelled job may have written a part, and nothing twice or that is wrong. */
  async judgeOutput(ends: JobStatus): Promise<string[]> {
    const expected = expectedLines(this.options.workload, this.records);
    const problems = compareLines(expected, await this.lines());
    return ends === 'FINISHED' ? problems : problems.filter((problem) => !/ lines lost/.test(problem));
  }

  lines(): Promise<string[]> {
    const { sink } = this.options;
    return sink === 's3' ? this.linesOfObjects() : Promise.resolve(linesOfFiles(this.outputFolder));
  }

  /** The longest time after `fromMs` in which no record came out, before one did. */
  longestGapMs(fromMs: number, toMs = Number.POSITIVE_INFINITY): number | undefined {
    const times = readdirSync(this.stampsFolder)
      .flatMap((name) => readFileSync(join(this.stampsFolder, name), 'utf8').split('\n'))
      .map(Number)
      .filter((time) => time > 0)
      .sort((a, b) => a - b);
    let gap: number | undefined;
    for (const [i, time] of times.entries()) {
      const before = times[i - 1];
      if (before === undefined || time < fromMs || before > toMs) continue;
      gap = Math.max(gap ?? 0, time - before);
    }
    return gap;
  }

  private async linesOfObjects(): Promise<string[]> {
    const { GetObjectCommand, ListObjectsV2Command } = await import('@aws-sdk/client-s3');
    const { access, bucket, prefix } = this.options.s3;
    const client = createS3Client(access);
    try {
      const lines: string[] = [];
      let token: string | undefined;
      do {
        const page = await client.send(
          new ListObjectsV2Command({ Bucket: bucket, Prefix: `${prefix}/`, ContinuationToken: token }),
        );
        for (const { Key } of page.Contents ?? []) {
          const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key }));
          lines.push(...linesOf((await Body?.transformToString()) ?? ''));
        }
        token = page.NextContinuationToken;
      } while (token !== undefined);
      return lines;
    } finally {
      client.destroy();
    }
  }
}

function linesOfFiles(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => !/^[._]/.test(name))
    .flatMap((name) => linesOf(readFileSync(join(folder, name), 'utf8')));
}

const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '');
