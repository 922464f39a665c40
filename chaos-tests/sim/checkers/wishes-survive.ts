import type { JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/** 12: a cancellation that was answered comes true, whoever leads. (Its job could not end by itself in time.) */
export const wishesSurvive: Checker = (world) => {
  const cancelled = new Set<JobId>();
  return {
    cancelAnswered(jobId) {
      cancelled.add(jobId);
    },
    atRest() {
      for (const jobId of cancelled) {
        const result = world.etcd.get(world.keys.result(jobId))?.value ?? 'no result';
        if (!/"status":"(CANCELED|FAILED)"/.test(result)) world.violated(12, `cancelled job ${jobId} has ${result}`);
      }
    },
  };
};
