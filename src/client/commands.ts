import { basename } from 'node:path';
import { type Clock, sleep } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { Random } from '../kernel/random.ts';
import { newJobId } from '../kernel/ids.ts';
import { isTerminalJobStatus } from '../contracts/job-status.ts';
import type { JobSummary, OperationStatus, RestClient } from './rest-client.ts';

export interface ClientContext {
  readonly rest: RestClient;
  readonly clock: Clock;
  readonly random: Random;
  /** One line for the user. */
  readonly print: (line: string) => void;
  /** Packs a job file into one ES module. */
  readonly pack: (file: string) => Promise<Uint8Array>;
}

export interface RunOptions {
  readonly file: string;
  readonly args: readonly string[];
  readonly entryClass: string | undefined;
  readonly parallelism: number | undefined;
  readonly detached: boolean;
  /** Starts from what a savepoint or retained checkpoint holds. */
  readonly fromSavepoint?: string | undefined;
  readonly claimMode?: string | undefined;
  readonly allowNonRestoredState?: boolean;
}

/** `millrace run`: packs, uploads, starts; waits for the end unless detached. Resolves with the exit code. */
export async function runJob(context: ClientContext, options: RunOptions): Promise<number> {
  const bundle = await context.pack(options.file);
  const name = basename(options.file).replace(/\.[cm]?[jt]s$/, '.mjs');
  const jarId = await context.rest.uploadJar(name, bundle);
  // The id is chosen here, so that a repeated request can never run the job twice.
  const jobId = newJobId(context.random);
  await context.rest.runJar(jarId, {
    jobId,
    programArgsList: options.args,
    ...(options.entryClass === undefined ? {} : { entryClass: options.entryClass }),
    ...(options.parallelism === undefined ? {} : { parallelism: options.parallelism }),
    ...(options.fromSavepoint === undefined ? {} : { savepointPath: options.fromSavepoint }),
    ...(options.claimMode === undefined ? {} : { claimMode: options.claimMode }),
    ...(options.allowNonRestoredState === true ? { allowNonRestoredState: true } : {}),
  });
  context.print(`Job has been submitted with JobID ${jobId}`);
  // The job keeps its own reference to the bundle; the upload was only its vehicle.
  await context.rest.deleteJar(jarId);
  return options.detached ? 0 : await waitForEnd(context, jobId);
}

async function waitForEnd(context: ClientContext, jobId: string): Promise<number> {
  let last: string | undefined;
  for (;;) {
    const job = await context.rest.job(jobId);
    if (job.state !== last) context.print(`${job.name}: ${job.state}`);
    last = job.state;
    if (isTerminalJobStatus(job.state)) {
      if (job.state === 'FINISHED') context.print(`Job ${jobId} finished after ${job.duration} ms`);
      const cause = job.state === 'FAILED' ? await context.rest.rootException(jobId) : undefined;
      if (cause !== undefined) context.print(cause);
      return job.state === 'FINISHED' ? 0 : 1;
    }
    await sleep(context.clock, 300);
  }
}

/** `millrace list`. */
export async function listJobs(context: ClientContext, options: { readonly all: boolean }): Promise<number> {
  const jobs = (await context.rest.listJobs()).filter((job) => options.all || !isTerminalJobStatus(job.state));
  if (jobs.length === 0) context.print(options.all ? 'No jobs.' : 'No running jobs; --all shows the ended ones.');
  for (const job of jobs) context.print(describe(job));
  return 0;
}

/** `millrace status`. */
export async function jobStatus(context: ClientContext, jobId: string): Promise<number> {
  context.print(describe(await context.rest.job(jobId)));
  return 0;
}

/** `millrace cancel`: returns once the wish is durable, or with `wait` once the job has ended. */
export async function cancelJob(
  context: ClientContext,
  jobId: string,
  options: { readonly wait: boolean },
): Promise<number> {
  await context.rest.cancel(jobId);
  context.print(`Cancelling job ${jobId}.`);
  if (!options.wait) return 0;
  for (;;) {
    const job = await context.rest.job(jobId);
    if (isTerminalJobStatus(job.state)) {
      context.print(describe(job));
      if (job.state === 'CANCELED') return 0;
      throw new MillraceError('CONFLICT', `the job ended ${job.state} before it was cancelled`);
    }
    await sleep(context.clock, 200);
  }
}

/** `millrace savepoint`: returns once the savepoint is complete, and prints where it is. */
export async function takeSavepoint(
  context: ClientContext,
  jobId: string,
  options: { readonly targetDirectory: string | undefined; readonly cancelJob: boolean },
): Promise<number> {
  const triggerId = await context.rest.triggerSavepoint(jobId, {
    triggerId: context.random.hex(16),
    ...(options.targetDirectory === undefined ? {} : { 'target-directory': options.targetDirectory }),
    ...(options.cancelJob ? { 'cancel-job': true } : {}),
  });
  context.print(`Triggering savepoint for job ${jobId}.`);
  const { location } = await resultOf(context, () => context.rest.savepointStatus(jobId, triggerId));
  context.print(`Savepoint completed. Path: ${location}`);
  return 0;
}

/** `millrace stop`: returns once the job has ended with its savepoint. */
export async function stopJob(
  context: ClientContext,
  jobId: string,
  options: { readonly targetDirectory: string | undefined; readonly drain: boolean },
): Promise<number> {
  const triggerId = await context.rest.stop(jobId, {
    triggerId: context.random.hex(16),
    drain: options.drain,
    ...(options.targetDirectory === undefined ? {} : { targetDirectory: options.targetDirectory }),
  });
  context.print(`${options.drain ? 'Draining' : 'Suspending'} job ${jobId} with a savepoint.`);
  const { location } = await resultOf(context, () => context.rest.savepointStatus(jobId, triggerId));
  context.print(`Savepoint completed. Path: ${location}`);
  return 0;
}

/** `millrace savepoint --dispose`. */
export async function disposeSavepoint(context: ClientContext, path: string): Promise<number> {
  const triggerId = await context.rest.disposeSavepoint(path, context.random.hex(16));
  await resultOf(context, () => context.rest.disposalStatus(triggerId));
  context.print(`Savepoint ${path} disposed.`);
  return 0;
}

async function resultOf(
  context: ClientContext,
  ask: () => Promise<OperationStatus>,
): Promise<NonNullable<OperationStatus['operation']>> {
  for (;;) {
    const { status, operation } = await ask();
    if (status.id === 'COMPLETED') {
      const failure = operation?.['failure-cause'];
      if (failure !== undefined) throw new MillraceError('CONFLICT', failure['stack-trace'] ?? 'it failed');
      return operation ?? {};
    }
    await sleep(context.clock, 200);
  }
}

const HAND_OVER_MAX_MS = 15_000;

/**
 * `millrace handover`: the leader that is named gives leadership up. The token that goes with its name is
 * looked up first, so a request that comes late, or twice, finds another leader and changes nothing.
 */
export async function handOver(
  { rest, clock, print }: ClientContext,
  options: { readonly leader: string; readonly to: string | undefined },
): Promise<number> {
  const { leader } = await rest.ha();
  if (leader?.id !== options.leader)
    throw new MillraceError(
      'CONFLICT',
      `${options.leader} does not lead${leader === null ? ', nobody does right now' : `: ${leader.id} does`}`,
      { hint: 'Name the present leader, as a sign that you mean it.' },
    );
  const { id, token } = leader;
  const to = options.to === undefined ? {} : { to: options.to };
  await rest.json('POST', '/ha/handover', { leader: id, token, ...to });
  print(`${id} has given up leadership (token ${token}).`);
  for (const endMs = clock.nowMs() + HAND_OVER_MAX_MS; clock.nowMs() < endMs; await sleep(clock, 20)) {
    const now = (await rest.ha()).leader;
    if (now === null || now.token === token) continue;
    print(`${now.id} leads now (token ${now.token}).`);
    return options.to === undefined || options.to === now.id ? 0 : 1;
  }
  print('Nobody leads yet; see GET /ha.');
  return 1;
}

function describe(job: JobSummary): string {
  const start = job['start-time'] > 0 ? new Date(job['start-time']).toISOString() : 'not started';
  return `${start} : ${job.jid} : ${job.name} (${job.state})`;
}
