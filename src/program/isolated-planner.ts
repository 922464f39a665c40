import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { EnvironmentDefaults } from '../api/execution-context.ts';
import { type JobGraph, type JobPlan, jobGraphSchema, MAX_PARALLELISM_LIMIT } from '../contracts/job-graph.ts';
import type { RunJarRequest } from '../contracts/dispatcher-gateway.ts';
import type { Clock } from '../kernel/clock.ts';
import { digestOf } from '../kernel/digest.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import type { Digest, JobId } from '../kernel/ids.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { BundleFolder } from './bundle-folder.ts';
import { checkBundleBytes } from './check-bundle.ts';
import { Limiter } from './limiter.ts';
import { locateSyntaxError } from './locate-syntax-error.ts';
import type { PlanAnswer, PlanTask } from './plan-messages.ts';
import { runInProcess } from './plan-process.ts';
import type { ObjectBundleRef } from './program-loader.ts';

/** An uploaded bundle, as the planner needs it. */
export interface PlannableJar {
  readonly name: string;
  readonly objectKey: string;
  readonly digest: Digest;
  readonly bytes: number;
}

export interface IsolatedPlannerDeps {
  readonly fetchBundle: (ref: ObjectBundleRef) => Promise<Uint8Array>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface IsolatedPlannerOptions {
  /** Folder for short-lived copies of bundles. */
  readonly dir: string;
  /** Longest time that a program may take to build its graph, splits included. */
  readonly timeoutMs: number;
  /** What programs start from: the cluster's configuration. */
  readonly defaults: EnvironmentDefaults;
  /** JavaScript heap of a program that is being planned; default 256 MiB. */
  readonly heapBytesMax?: number;
  /** Programs planned at once; default 2. */
  readonly concurrent?: number;
  /** The package that `import 'millrace'` stands for, and the file of the process; default: this package's own. */
  readonly packageRoot?: string;
  readonly childUrl?: URL;
}

/** Programs that may wait for their turn; more are refused with `UNAVAILABLE`. */
const WAITING_MAX = 32;
const HEAP_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Runs users' programs to learn their graphs: each in a process of its own with limits on time and
 * memory, on a copy of the bundle that is removed afterwards. A plan is made twice, in two processes: a
 * `main` that is not deterministic is refused here and not in the middle of a recovery.
 *
 * This protects a server from programs that are wrong. It is no sandbox: a program may do whatever the
 * server's user may, here as in a slot.
 */
export class IsolatedPlanner implements Closeable {
  private readonly limiter: Limiter;
  private readonly closing = new AbortController();
  private readonly active = new Set<Promise<unknown>>();

  constructor(
    private readonly deps: IsolatedPlannerDeps,
    private readonly options: IsolatedPlannerOptions,
  ) {
    this.limiter = new Limiter({ running: options.concurrent ?? 2, waiting: WAITING_MAX });
  }

  /** What of a bundle can be run. Rejects with `PROGRAM` when it does not load or has nothing to run. */
  async inspect(name: string, bytes: Uint8Array): Promise<{ readonly entries: readonly string[] }> {
    checkBundleBytes(name, bytes);
    return this.inFolder(
      name,
      digestOf(bytes),
      async () => bytes,
      async (bundle) => {
        const answer = await this.ask({
          ...bundle,
          mode: 'inspect',
          entryClass: undefined,
          args: [],
          defaults: this.options.defaults,
        });
        if (answer.kind !== 'entries') throw unexpected(name);
        return { entries: answer.entries };
      },
    );
  }

  /** The job that a bundle stands for. Rejects with `PROGRAM` or `INVALID_ARGUMENT`. */
  async plan(jar: PlannableJar, request: RunJarRequest, jobId: JobId): Promise<JobGraph> {
    checkRequest(request);
    const { defaults } = this.options;
    const parallelism = request.parallelism ?? defaults.parallelism;
    const bundle: ObjectBundleRef = {
      kind: 'object',
      objectKey: jar.objectKey,
      digest: jar.digest,
      bytes: jar.bytes,
      ...(request.entryClass === undefined ? {} : { entryClass: request.entryClass }),
      args: [...request.programArgs],
      parallelism,
    };
    const plan = await this.inFolder(
      jar.name,
      jar.digest,
      () => this.deps.fetchBundle(bundle),
      async (folder) => {
        const task = {
          ...folder,
          entryClass: request.entryClass,
          args: request.programArgs,
          defaults: { ...defaults, parallelism },
        };
        const [first, second] = await allOrFirstFailure([
          this.ask({ ...task, mode: 'plan-with-splits' }),
          this.ask({ ...task, mode: 'plan' }),
        ]);
        if (first?.kind !== 'plan' || second?.kind !== 'plan') throw unexpected(jar.name);
        checkDeterministic(jar.name, first.plan, second.plan);
        return first.plan;
      },
    );
    const graph = {
      ...plan,
      jobId,
      bundle,
      ...(request.savepointPath === undefined
        ? {}
        : {
            restoreFrom: {
              metadataKey: request.savepointPath,
              allowNonRestoredState: request.allowNonRestoredState,
              ...(request.claimMode === undefined ? {} : { claimMode: request.claimMode }),
            },
          }),
      submittedWallMs: this.deps.clock.wallMs(),
    };
    // It comes from a process in which somebody else's code ran.
    const parsed = jobGraphSchema.safeParse(graph);
    if (parsed.success) return parsed.data;
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    throw new MillraceError('PROGRAM', `${jar.name} built a graph that cannot be stored: ${problems.join('; ')}`);
  }

  /** Ends what is being planned. Idempotent. */
  async close(): Promise<void> {
    this.closing.abort();
    await Promise.allSettled(this.active);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async inFolder<T>(
    bundleName: string,
    digest: Digest,
    fetch: () => Promise<Uint8Array>,
    work: (bundle: Pick<PlanTask, 'bundleName' | 'moduleUrl' | 'libraryUrl'> & { readonly path: string }) => Promise<T>,
  ): Promise<T> {
    const running = this.limiter.run(`planning ${bundleName}`, async () => {
      if (this.closing.signal.aborted) throw new MillraceError('CLOSED', 'the planner is closed');
      const dir = join(this.options.dir, `plan-${this.deps.random.hex(8)}`);
      try {
        await mkdir(dir, { recursive: true });
        const bundle = await new BundleFolder(dir, this.deps.random, this.options.packageRoot).materialise(
          digest,
          fetch,
        );
        return await work({ ...bundle, bundleName });
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    });
    this.active.add(running);
    try {
      return await running;
    } finally {
      this.active.delete(running);
    }
  }

  private async ask(
    task: Omit<PlanTask, 'timeLimitMs'> & { readonly path: string },
  ): Promise<Exclude<PlanAnswer, { kind: 'failed' }>> {
    const { path, ...data } = task;
    const { answer, output } = await runInProcess(data, {
      clock: this.deps.clock,
      timeoutMs: this.options.timeoutMs,
      heapBytesMax: this.options.heapBytesMax ?? HEAP_BYTES_MAX,
      childUrl: this.options.childUrl ?? new URL('./plan-child.js', import.meta.url),
      signal: this.closing.signal,
    });
    if (output !== '') this.deps.log.debug({ jar: task.bundleName, output }, 'program printed while it was planned');
    if (answer.kind !== 'failed') return answer;
    const { code, message, hint, stack } = answer.error;
    const place = answer.placeUnknown ? await locateSyntaxError(path) : undefined;
    const text = place === undefined ? message : `${message} (${task.bundleName}:${place.line}: ${place.source})`;
    const error = new MillraceError(code, text, hint === undefined ? {} : { hint });
    if (stack !== undefined) error.stack = stack;
    throw error;
  }
}

function checkRequest({ parallelism, programArgs }: RunJarRequest): void {
  if (
    parallelism !== undefined &&
    (!Number.isInteger(parallelism) || parallelism < 1 || parallelism > MAX_PARALLELISM_LIMIT)
  ) {
    throw new InvalidArgumentError(
      `parallelism must be a whole number from 1 to ${MAX_PARALLELISM_LIMIT}, not ${parallelism}`,
    );
  }
  if (programArgs.length > 1_000) throw new InvalidArgumentError('a program takes at most 1000 arguments');
}

function checkDeterministic(name: string, first: JobPlan, second: JobPlan): void {
  if (first.fingerprint === second.fingerprint) return;
  const names = (plan: JobPlan) => plan.vertices.map((vertex) => `${vertex.name} (${vertex.parallelism})`).join(', ');
  const [one, other] = [names(first), names(second)];
  const difference = one === other ? 'the same vertices, joined or identified differently' : `${one}; and: ${other}`;
  throw new MillraceError('PROGRAM', `${name} built two different graphs when it was run twice: ${difference}`, {
    hint: 'main must build the same graph each time: no time, randomness, environment or files in its decisions.',
  });
}

/** Both settle before it returns, so that nothing runs on in a folder that is removed. */
async function allOrFirstFailure<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(promises);
  return settled.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}

function unexpected(name: string): MillraceError {
  return new MillraceError('PROGRAM', `${name} interfered with the process in which it was planned`);
}
