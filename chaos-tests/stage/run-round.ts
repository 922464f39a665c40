import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { asError } from '../../src/kernel/errors.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { currentRevision, etcdHistory } from '../../test-support/etcd-history.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { LocalCluster } from '../../test-support/local-cluster.ts';
import { until } from '../../test-support/until.ts';
import { danglingPointers } from '../checkers/check-bucket.ts';
import { checkHistory } from '../checkers/check-history.ts';
import { checkLogs, isDeployment } from '../checkers/check-logs.ts';
import { leftovers, StoreInspector } from '../checkers/check-stores.ts';
import { type ClusterLine, clusterLines, strayLines } from '../checkers/cluster-logs.ts';
import { judgeQuiet, settled } from '../checkers/settled.ts';
import type { Scenario } from '../scenarios/scenario.ts';
import { WORKLOADS, type WorkloadName } from '../workloads/records.ts';
import { faultTimelines, type FaultTimeline } from './fault-timeline.ts';
import { JobRun } from './job-run.ts';
import { mountSmall } from './small-disk.ts';
import { Stage } from './stage.ts';
import type { World } from './world.ts';

export interface RoundOptions {
  readonly seed: number;
  readonly long: boolean;
  /** `key=value` for every process, on top of the scenario's. */
  readonly settings: readonly string[];
  /** Called with the folder of logs and output before it is removed. */
  readonly onEnd?: (dir: string, report: RoundReport) => void;
}

export interface RoundReport {
  readonly scenario: string;
  readonly seed: number;
  readonly workload: WorkloadName;
  readonly sink: 'files' | 's3';
  readonly faults: readonly FaultTimeline[];
  readonly tookMs: number;
  /** What was promised and not kept; empty when all is well. */
  readonly problems: readonly string[];
}

const CONFIG: readonly string[] = [
  'execution.checkpointing.interval=300 ms',
  'execution.checkpointing.tolerable-failed-checkpoints=100',
  'restart-strategy.type=fixed-delay',
  'restart-strategy.fixed-delay.attempts=1000',
  'restart-strategy.fixed-delay.delay=100 ms',
  'heartbeat.interval=500 ms',
  'heartbeat.timeout=3 s',
  // So that the sweeper is at work in the middle of it all.
  'gc.grace=2 min',
  'gc.interval=1 s',
];

/** Plays one scenario once: a cluster of its own, the story, and then everything is judged. */
export async function runRound(world: World, scenario: Scenario, options: RoundOptions): Promise<RoundReport> {
  const startedMs = performance.now();
  const random = new SeededRandom(options.seed);
  const workload = scenario.workload ?? (WORKLOADS[options.seed % WORKLOADS.length] as WorkloadName);
  const sink = scenario.sink ?? (options.seed % 2 === 0 ? 's3' : 'files');
  const round = { scenario: scenario.name, seed: options.seed, workload, sink };
  const dir = makeTempFolder('chaos');
  const problems: string[] = [];
  let faults: readonly FaultTimeline[] = [];
  try {
    await world.heal();
    ({ faults } = await playRound(world, scenario, { ...options, ...round, dir, random, problems }));
  } catch (error) {
    problems.push(asError(error).stack ?? String(error));
  }
  const report = { ...round, faults, tookMs: performance.now() - startedMs, problems: [...new Set(problems)] };
  options.onEnd?.(dir, report);
  removeTempFolder(dir);
  return report;
}

interface Round extends RoundOptions {
  readonly workload: WorkloadName;
  readonly sink: 'files' | 's3';
  readonly dir: string;
  readonly random: SeededRandom;
  readonly problems: string[];
}

async function playRound(world: World, scenario: Scenario, round: Round) {
  const { dir, random, problems } = round;
  const clusterId = `chaos-${random.hex(2)}-${Date.now().toString(36)}`;
  const root = `/millrace/${clusterId}/`;
  const outputFolder = join(dir, 'output');
  mkdirSync(outputFolder);
  const unmount = scenario.outputBytes === undefined ? undefined : await mountSmall(outputFolder, scenario.outputBytes);
  const fromRevision = await currentRevision(world.etcd.member(0).endpoint);
  const direct = world.storesFor(clusterId, []);
  try {
    await using cluster = await LocalCluster.start({
      dir,
      masters: scenario.masters ?? 3,
      workers: scenario.workers ?? 2,
      slotsPerWorker: 2,
      config: [
        ...CONFIG,
        ...world.storesFor(clusterId, scenario.proxied ?? []),
        ...(scenario.config ?? []),
        ...round.settings,
      ],
      seat: async (role, index) => ({ ...(await world.seat(role, index)), env: scenario.env?.(role, index) ?? {} }),
    });
    const job = new JobRun({
      cluster,
      workload: round.workload,
      sink: round.sink,
      seconds: (round.long ? scenario.longSeconds : undefined) ?? scenario.seconds ?? 8,
      dir,
      random,
      s3: { access: world.s3.access, bucket: world.bucket, prefix: `${clusterId}-output` },
    });
    const stage = new Stage(cluster, job, random, round.long, world, dir, root);
    await using inspector = await StoreInspector.open(direct);
    await using watcher = watchPointers(inspector);
    try {
      if (scenario.submitsItself !== true) {
        await job.submit();
        await stage.checkpoints(2);
      }
      await scenario.story(stage);
    } finally {
      await stage.errandsDone();
      await world.heal();
    }
    problems.push(...(await job.judgeEnd(scenario.ends ?? 'FINISHED')));
    const endMs = Date.now();
    problems.push(...(await judgeQuiet(cluster, inspector, job.jobId)));
    problems.push(...(await judgeStop(cluster, inspector, job, scenario)));
    problems.push(...watcher.found);
    const masters = clusterLines(cluster.masters);
    if (scenario.clocksDiffer !== true) {
      const expected = scenario.expects ?? [];
      problems.push(...checkLogs(masters, job.jobId).filter((one) => !expected.some((text) => one.includes(text))));
    }
    if (scenario.neverRestarts === true) problems.push(...restarts(masters, job.jobId, stage.faults[0]?.atMs ?? 0));
    problems.push(...checkHistory(await etcdHistory(world.etcd.member(0).endpoint, root, fromRevision), root));
    problems.push(...leaked(cluster, world.s3.access.credentials.secretAccessKey));
    const sources = {
      masters,
      workers: clusterLines(cluster.workers),
      jobId: job.jobId,
      tasks: job.tasks,
      endMs,
      gapMs: (fromMs: number, toMs: number) => job.longestGapMs(fromMs, toMs),
    };
    return { faults: faultTimelines(stage.faults, sources) };
  } finally {
    await unmount?.();
  }
}

/** Looks again and again for records that name objects which are not there; the stores may be away meanwhile. */
function watchPointers(inspector: StoreInspector): AsyncDisposable & { readonly found: readonly string[] } {
  const found: string[] = [];
  const stop = new AbortController();
  const look = async () => danglingPointers(await inspector.contents());
  const watching = until(
    'the end of the round',
    async () => {
      if (stop.signal.aborted) return true;
      const first = await look();
      if (first.length === 0) return false;
      const again = new Set(await look());
      found.push(...first.filter((one) => again.has(one)));
      return false;
    },
    { timeoutMs: 3_600_000, everyMs: 700 },
  );
  watching.catch(() => undefined); // Its only end is the one asked for.
  return {
    found,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
    },
  };
}

/** All that lives ends politely when asked; the stores then hold the result alone, and no output has changed. */
async function judgeStop(
  cluster: LocalCluster,
  inspector: StoreInspector,
  job: JobRun,
  scenario: Scenario,
): Promise<string[]> {
  const problems: string[] = [];
  const living = [...cluster.liveMasters, ...cluster.liveWorkers];
  const before = (await job.lines()).length;
  await cluster.stop();
  for (const { id, process } of living) {
    const { code, signal } = await process.exited;
    if (code !== 0) problems.push(`${id} ended with ${signal ?? code} when asked to stop`);
  }
  const after = (await job.lines()).length;
  if (after !== before) problems.push(`output changed after the end: ${before} lines became ${after}`);
  problems.push(...(await job.judgeOutput(scenario.ends ?? 'FINISHED')));
  problems.push(...(await settled(async () => leftovers(await inspector.contents(), job.jobId, true))));
  for (const line of [...strayLines(cluster.masters), ...strayLines(cluster.workers)])
    problems.push(`not a log line: ${line}`);
  return problems;
}

function restarts(masters: readonly ClusterLine[], jobId: string, sinceMs: number): string[] {
  return masters
    .filter((line) => line.time >= sinceMs && line.jobId === jobId && isDeployment(line))
    .map(({ deployment }) => `deployment ${deployment} was not needed: this fault stops no task`);
}

function leaked(cluster: LocalCluster, secret: string): string[] {
  return [...cluster.masters, ...cluster.workers]
    .filter(({ process }) => process.log().includes(secret))
    .map(({ id }) => `the log of ${id} holds the secret key of S3`);
}
