import type { DeploymentId, JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/** 4: after a result exists no task of its job is deployed by anybody who could know. */
export const terminalIsTerminal: Checker = (world) => {
  const { keys } = world;
  /** By job: the token under which its result was written. */
  const ended = new Map<string, bigint>();
  const judge = (jobId: JobId, deployment: DeploymentId, what: string) => {
    const by = ended.get(jobId);
    // Judged when it is sent: one that is on its way to a worker that was given up is nobody's will any more.
    if (by !== undefined && BigInt(deployment.split('-')[0] ?? 0) >= by)
      world.violated(4, `${what} ${deployment} of job ${jobId}, which has ended`);
  };
  return {
    changed({ set, leaderBefore }) {
      for (const change of set.changes) {
        if (change.kind !== 'put') continue;
        const { key } = change.entry;
        if (key.startsWith(keys.results) && !ended.has(key.slice(keys.results.length)))
          ended.set(key.slice(keys.results.length), leaderBefore?.modRevision ?? 0n);
        if (key.startsWith(keys.jobs) && ended.has(key.slice(keys.jobs.length)))
          world.violated(4, `job ${key.slice(keys.jobs.length)} has a second life`);
      }
    },
    deploying(by, _token, { jobId, deployment }) {
      judge(jobId, deployment, `${by} sends deployment`);
    },
    atRest(cluster) {
      for (const worker of cluster.workers.values())
        for (const { jobId, attemptId } of worker.live())
          if (ended.has(jobId)) world.violated(4, `attempt ${attemptId} of ended job ${jobId} still runs`);
    },
  };
};
