import { sleep } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import { planFaults } from './faults.ts';
import { CHECKERS } from './invariants.ts';
import type { Violation } from './sightings.ts';
import { makeConfig, type SimConfig } from './sim-config.ts';
import { SimCluster } from './sim-cluster.ts';
import { SimWorld } from './sim-world.ts';
import type { TraceLine } from './trace.ts';

export interface SimReport {
  readonly seed: number;
  readonly hash: string;
  readonly violations: readonly Violation[];
  /** Of virtual time. */
  readonly endedAtMs: number;
  readonly steps: number;
  readonly config: SimConfig;
  /** Empty unless it was recorded. */
  readonly lines: readonly TraceLine[];
}

/** 14: how long after the last fault every job may take to run (or to have ended). */
export const RUNNING_WITHIN_MS = 20_000;
/** 12: after that, while its job runs, what was asked for and acknowledged may be without its result for so long. */
export const ANSWERED_WITHIN_MS = 10_000;
/** And then to end: its input is read fast from then on. */
export const ENDED_WITHIN_MS = 30_000;
const LOOK_MS = 150;
/** A schedule has some thousands of events. One that has so many goes in circles. */
const STEPS_MAX = 300_000;
/** What is still on its way when all jobs have ended. */
const QUIET_MS = 2_500;
/** A slot that was given to a job when that had already ended is freed after the resource manager's grace. */
const SETTLED_WITHIN_MS = 15_000;

/** Runs one schedule. The same seed gives the same report, in any process. */
export async function simulate(seed: number, options: { readonly record?: boolean } = {}): Promise<SimReport> {
  const config = makeConfig(seed);
  const world = new SimWorld(config, options.record ?? false);
  const broken = (error: unknown) => world.violated(0, `a process broke: ${asError(error).stack ?? String(error)}`);
  process.on('uncaughtException', broken);
  process.on('unhandledRejection', broken);
  try {
    const cluster = new SimCluster(world);
    const checkers = CHECKERS.map((checker) => checker(world));
    for (const checker of checkers) world.watch(checker);
    planFaults(world, cluster);
    cluster.start();
    await play(world, cluster, () => checkers.every((checker) => checker.settled?.() ?? true));
    if (world.violations.length === 0) for (const checker of checkers) checker.atRest?.(cluster);
    // Rejections that nobody handled are told at the end of a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  } finally {
    process.off('uncaughtException', broken);
    process.off('unhandledRejection', broken);
  }
  const { violations, time, trace } = world;
  return { seed, hash: trace.hash, violations, endedAtMs: time.nowMs, steps: time.steps, config, lines: trace.lines };
}

async function play(world: SimWorld, cluster: SimCluster, settled: () => boolean): Promise<void> {
  const { time, config } = world;
  const failed = () => {
    if (time.steps > STEPS_MAX && world.violations.length === 0)
      world.violated(14, `${time.steps} events, and time stands at ${Math.round(time.nowMs)} ms`);
    return world.violations.length > 0;
  };
  await time.run(config.healAtMs, failed);
  if (failed()) return;
  const healedMs = time.nowMs;
  world.heal();
  cluster.heal();

  const look = watchJobs(world, cluster);
  // Jobs shall not end before they have done what they were asked for.
  await time.run(time.nowMs + 1.5 * ANSWERED_WITHIN_MS, () => failed() || look.allAnswered);
  if (failed()) return;
  world.hurry = true;
  await time.run(time.nowMs + RUNNING_WITHIN_MS, () => failed() || look.allRun);
  if (failed()) return;
  if (!look.allRun) return world.violated(14, `${RUNNING_WITHIN_MS} ms after the last fault: ${look.describe()}`);
  await time.run(time.nowMs + ENDED_WITHIN_MS, () => failed() || look.allEnded);
  if (failed()) return;
  if (!look.allEnded)
    return world.violated(14, `${ENDED_WITHIN_MS} ms later not all jobs have ended: ${look.describe()}`);
  await time.run(time.nowMs + QUIET_MS, failed);
  await time.run(time.nowMs + SETTLED_WITHIN_MS, () => failed() || settled());
  // A leader that died when all jobs had ended is followed when its lease is over, as the others are.
  const led = () => cluster.leader?.token !== undefined;
  await time.run(healedMs + RUNNING_WITHIN_MS, () => failed() || led());
  if (!failed() && !led()) world.violated(14, `nobody leads ${RUNNING_WITHIN_MS} ms after the last fault`);
  if (!failed()) await sweep(world, cluster);
}

/** Asks the leader, again and again, how the jobs are. */
function watchJobs(world: SimWorld, cluster: SimCluster) {
  const status = new Map<string, string>();
  const runsSince = new Map<string, number>();
  const state = { allRun: false, allAnswered: false, allEnded: false, describe };
  const { config, etcd, keys } = world;
  const { process } = cluster.client;

  function describe(): string {
    const leader = cluster.leader?.process.name ?? 'nobody';
    const open = [...cluster.client.operations.open.keys()].map((triggerId) => `, no result of ${triggerId}`).join('');
    return `${leader} leads${open}; ${config.jobs.map(({ graph }) => `${graph.jobId} ${status.get(graph.jobId)}`).join(', ')}`;
  }
  async function look(): Promise<void> {
    for (;;) {
      for (const { graph } of config.jobs) {
        const { jobId } = graph;
        const result = etcd.get(keys.result(jobId))?.value;
        if (result !== undefined) status.set(jobId, result.includes('"dirty":true') ? 'ENDED dirty' : 'ENDED');
        else if (cluster.client.dropped.has(jobId)) status.set(jobId, 'ENDED');
        else if (!cluster.client.acknowledged.has(jobId)) status.set(jobId, 'not acknowledged');
        else status.set(jobId, await describeJob(jobId));
      }
      const all = config.jobs.map(({ graph }) => status.get(graph.jobId));
      state.allRun ||= all.every((one) => one === 'RUNNING' || one?.startsWith('ENDED'));
      for (const { graph } of config.jobs)
        if (status.get(graph.jobId) !== 'RUNNING') runsSince.delete(graph.jobId);
        else if (!runsSince.has(graph.jobId)) runsSince.set(graph.jobId, world.time.nowMs);
      const { open } = cluster.client.operations;
      for (const [triggerId, jobId] of open)
        if (world.time.nowMs - (runsSince.get(jobId) ?? world.time.nowMs) > ANSWERED_WITHIN_MS)
          world.violated(12, `job ${jobId} has run for ${ANSWERED_WITHIN_MS} ms and ${triggerId} has no result`);
      state.allAnswered = open.size === 0;
      state.allEnded = all.every((one) => one === 'ENDED') && state.allAnswered;
      await sleep(process.clock, LOOK_MS);
    }
  }
  async function describeJob(jobId: (typeof config.jobs)[number]['graph']['jobId']): Promise<string> {
    try {
      const details = await cluster.leader?.dispatcher.requestJob(jobId);
      if (details === undefined) return 'nobody leads';
      const { RUNNING, FINISHED } = details.tasks;
      const all = Object.values(details.tasks).reduce((a, b) => a + b, 0);
      if (details.status === 'RUNNING' && RUNNING + FINISHED === all) return 'RUNNING';
      return `${details.status} ${JSON.stringify(details.tasks)} ${details.waitingFor ?? ''} ${details.exceptions.root?.message ?? ''}`;
    } catch (error) {
      return asError(error).message;
    }
  }
  look().catch((error: unknown) => world.violated(0, `looking failed: ${asError(error).message}`));
  return state;
}

/** 7: one sweep after quiet, when everything in the store is old. */
async function sweep(world: SimWorld, cluster: SimCluster): Promise<void> {
  const { time } = world;
  world.objectClockOffsetMs = 24 * 3_600_000;
  const { leader } = cluster;
  if (leader?.token === undefined) return world.violated(14, 'nobody leads at rest');
  let swept = false;
  leader.sweeper.sweep(leader.token).then(
    () => {
      swept = true;
    },
    (error: unknown) => world.violated(7, `the sweep failed: ${asError(error).message}`),
  );
  await time.run(time.nowMs + 5_000, () => swept || world.violations.length > 0);
}
