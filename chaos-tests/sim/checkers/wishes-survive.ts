import type { JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/**
 * 12: a cancellation that was answered comes true, whoever leads. Its job could not end by itself in time; it may
 * have been about to stop with a savepoint.
 */
export const wishesSurvive: Checker = (world) => {
  const cancelled = new Set<JobId>();
  const stopped = new Set<string>();
  return {
    changed({ set }) {
      for (const change of set.changes) {
        if (change.kind !== 'put' || !change.entry.key.startsWith(world.keys.allCheckpoints)) continue;
        const [jobId = ''] = change.entry.key.slice(world.keys.allCheckpoints.length).split('/');
        if (change.entry.value.includes('"stop":')) stopped.add(jobId);
      }
    },
    cancelAnswered(jobId) {
      cancelled.add(jobId);
    },
    atRest() {
      for (const jobId of cancelled) {
        const result = world.etcd.get(world.keys.result(jobId))?.value ?? 'no result';
        const status = stopped.has(jobId) ? /"status":"(CANCELED|FAILED|FINISHED)"/ : /"status":"(CANCELED|FAILED)"/;
        if (!status.test(result)) world.violated(12, `cancelled job ${jobId} has ${result}`);
      }
    },
  };
};
