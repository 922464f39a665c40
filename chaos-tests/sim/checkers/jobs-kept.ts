import type { JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/**
 * 3: a job that a client was told of is stored, running or ended, from then on, and is made once.
 * 11, at submissions: a definite refusal leaves nothing behind.
 */
export const jobsKept: Checker = (world) => {
  const { keys } = world;
  const jobs = new Set<string>();
  const results = new Set<string>();
  const made = new Map<string, number>();
  const asked = new Map<JobId, number>();
  const received = new Map<JobId, number>();
  return {
    changed({ set }) {
      for (const change of set.changes) {
        const key = change.kind === 'put' ? change.entry.key : change.key;
        if (key.startsWith(keys.jobs)) {
          const id = key.slice(keys.jobs.length);
          if (change.kind === 'delete') jobs.delete(id);
          else {
            jobs.add(id);
            made.set(id, (made.get(id) ?? 0) + 1);
            if ((made.get(id) ?? 0) > 1) world.violated(3, `job ${id} was made again`);
          }
        } else if (key.startsWith(keys.results)) {
          const id = key.slice(keys.results.length);
          if (change.kind === 'put') results.add(id);
          else world.violated(3, `the result of job ${id} was forgotten`);
        }
      }
      for (const id of made.keys())
        if (!jobs.has(id) && !results.has(id)) world.violated(3, `job ${id} is neither running nor ended`);
    },
    submissionAsked(jobId) {
      asked.set(jobId, (asked.get(jobId) ?? 0) + 1);
    },
    submissionReceived(jobId) {
      received.set(jobId, (received.get(jobId) ?? 0) + 1);
    },
    submissionAnswered(jobId, answered) {
      if ('jobId' in answered) {
        if (answered.jobId !== jobId) world.violated(3, `job ${jobId} was answered as ${answered.jobId}`);
        if (!jobs.has(jobId) && !results.has(jobId)) world.violated(3, `job ${jobId} was promised and is not stored`);
        return;
      }
      const definite = answered.code === 'UNAVAILABLE' || answered.code === 'FENCED';
      // A refusal speaks of one request: of a doubled one the other copy may have been taken.
      const once = asked.get(jobId) === 1 && (received.get(jobId) ?? 0) <= 1;
      if (definite && once && (jobs.has(jobId) || results.has(jobId)))
        world.violated(11, `job ${jobId} was refused with ${answered.code} and is stored`);
    },
  };
};
