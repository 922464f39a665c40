import type { Checker } from './checker.ts';

/** 11: a checkpoint whose pointer is durable is never declared aborted to those who took it. */
export const unknownIsNoFailure: Checker = (world) => ({
  checkpointAborted(deployment, jobId, checkpointId) {
    const pointer = world.etcd.get(world.keys.checkpoint(jobId, checkpointId));
    if (pointer !== undefined)
      world.violated(11, `checkpoint ${checkpointId} of ${deployment} was declared aborted, and is completed`);
  },
});
