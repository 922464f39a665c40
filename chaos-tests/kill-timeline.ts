import { DETECTED } from '../src/main/demo/timeline.ts';
import type { LocalCluster } from '../test-support/local-cluster.ts';
import { isDeployment } from './checkers/check-logs.ts';
import { clusterLines } from './checkers/cluster-logs.ts';
import type { PlayedKill } from './play-kills.ts';
import { runningAgain } from './running-again.ts';

/** What followed one kill, in milliseconds since it; undefined when it did not happen before the next kill. */
export interface KillTimeline extends PlayedKill {
  readonly detectedMs: number | undefined;
  readonly electedMs: number | undefined;
  /** All tasks of a deployment that came after the kill run; or they never stopped, and were adopted then. */
  readonly runningMs: number | undefined;
}

/** Reads from the logs of all processes, when all is over, how long each kill was felt. */
export function killTimelines(
  cluster: LocalCluster,
  jobId: string,
  kills: readonly PlayedKill[],
  tasks: number,
): KillTimeline[] {
  const masters = clusterLines(cluster.masters);
  const workers = clusterLines(cluster.workers);
  return kills.map((kill, i) => {
    const nextMs = kills[i + 1]?.atMs ?? Number.POSITIVE_INFINITY;
    const since = <T extends { readonly time: number }>(lines: readonly T[]) =>
      lines.filter(({ time }) => time >= kill.atMs && time < nextMs);
    const first = (messages: ReadonlySet<unknown>) => {
      const line = since(masters).find(({ msg }) => messages.has(msg));
      return line === undefined ? undefined : line.time - kill.atMs;
    };
    const deployed = since(masters).findLast((line) => isDeployment(line) && line.jobId === jobId);
    const adopted = since(masters).find((line) => line.msg === 'job adopted' && line.jobId === jobId);
    const all = runningAgain(since(workers), deployed, { jobId, tasks });
    const runningAt = (...lines: readonly ({ readonly time: number } | undefined)[]) => {
      const line = lines.find((one) => one !== undefined);
      return line === undefined ? undefined : line.time - kill.atMs;
    };
    return {
      ...kill,
      detectedMs: first(DETECTED),
      electedMs: first(new Set(['leadership granted'])),
      runningMs: runningAt(all, deployed === undefined && adopted?.complete === true ? adopted : undefined),
    };
  });
}
