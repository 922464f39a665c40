import { setTimeout as wait } from 'node:timers/promises';
import type { LocalCluster, Master, Worker } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { clusterLines } from './checkers/cluster-logs.ts';
import { type Kill, type KillSchedule, type Moment, showMoment } from './kill-schedule.ts';

export interface Play {
  readonly cluster: LocalCluster;
  readonly jobId: string;
  /** The part of the output that is committed, 0 to 1. */
  readonly progress: () => number;
  /** Whether the job has ended; a kill after that would test nothing. */
  readonly ended: () => Promise<boolean>;
}

export interface PlayedKill {
  readonly what: string;
  readonly atMs: number;
}

const PATIENCE_MS = 120_000;

/**
 * Kills as the schedule says and replaces the dead. Each kill is added to `played` as it happens.
 * Settles, also when it fails, only after all that was to be started has started: nothing may start
 * after the caller has cleaned up.
 */
export async function playKills(play: Play, schedule: KillSchedule, played: PlayedKill[]): Promise<void> {
  const replacements: Promise<void>[] = [];
  const outcomes = await Promise.allSettled([playAll(play, schedule, played, replacements)]);
  outcomes.push(...(await Promise.allSettled(replacements)));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

async function playAll(
  play: Play,
  schedule: KillSchedule,
  played: PlayedKill[],
  replacements: Promise<void>[],
): Promise<void> {
  for (const kill of schedule.kills) {
    if (!(await untilMoment(play, kill.when, played.at(-1)?.atMs ?? 0))) return;
    const dying = await victims(play.cluster, kill);
    const names = dying.map(({ id }) => id).join(' + ');
    played.push({ what: `${kill.victim} (${names}) ${showMoment(kill.when)}`, atMs: Date.now() });
    await Promise.all(dying.map((one) => one.process.kill('SIGKILL')));
    for (const one of dying) {
      const replacement = replace(play.cluster, one, kill.replaceAfterMs);
      replacement.catch(() => undefined); // Looked at when all is over.
      replacements.push(replacement);
    }
  }
}

/** False when the job has ended before. */
async function untilMoment(play: Play, when: Moment, lastKillMs: number): Promise<boolean> {
  const said = (...messages: readonly string[]) =>
    clusterLines(play.cluster.masters).find((line) => messages.includes(String(line.msg)) && line.time >= lastKillMs);
  let reached: () => boolean;
  switch (when.kind) {
    case 'progress':
      reached = () => play.progress() >= when.part;
      break;
    case 'election':
      reached = () => said('leadership granted') !== undefined;
      break;
    case 'deployment':
      reached = () => said('job deployed', 'regions deployed', 'job adopted') !== undefined;
      break;
    case 'delay':
      reached = () => true;
  }
  let looks = 0;
  const state = await until(
    `the moment of a kill: ${showMoment(when)}`,
    async () => {
      if (reached()) return 'reached';
      // Now and then: asking costs the masters something, and it is hardly ever so.
      return ++looks % 100 === 0 && (await play.ended()) ? 'ended' : undefined;
    },
    { timeoutMs: PATIENCE_MS, everyMs: 10 },
  );
  if (when.kind !== 'progress') await wait(when.delayMs);
  return state === 'reached';
}

async function victims(cluster: LocalCluster, { victim, pick }: Kill): Promise<readonly (Master | Worker)[]> {
  // Those who replace the dead may still be on their way.
  const living = <T>(what: string, list: () => readonly T[]) =>
    until(`living ${what}`, () => (list().length > 0 ? list() : undefined), { timeoutMs: PATIENCE_MS });
  const masters = () => living('masters', () => cluster.liveMasters);
  const workers = () => living('workers', () => cluster.liveWorkers);
  const oneOf = <T>(candidates: readonly T[]) => candidates.slice(Math.floor(pick * candidates.length)).slice(0, 1);
  switch (victim) {
    case 'leader':
      return [await leaderOf(cluster)];
    case 'master':
      return oneOf(await masters());
    case 'worker':
      return oneOf(await workers());
    case 'leader and worker': {
      const worker = oneOf(await workers());
      return [await leaderOf(cluster), ...worker];
    }
    case 'all workers':
      return workers();
    case 'all masters':
      return masters();
  }
}

/** The one that was granted leadership last, by the logs: quicker and surer than asking somebody. */
function leaderOf(cluster: LocalCluster): Promise<Master> {
  return until(
    'a living leader',
    () => {
      const last = clusterLines(cluster.masters).findLast((line) => line.msg === 'leadership granted');
      return cluster.liveMasters.find((master) => master.id === last?.process);
    },
    { timeoutMs: PATIENCE_MS, everyMs: 10 },
  );
}

async function replace(cluster: LocalCluster, dead: Master | Worker, afterMs: number): Promise<void> {
  await wait(afterMs);
  if (cluster.masters.includes(dead as Master)) await cluster.addMaster();
  else await cluster.addWorker();
}
