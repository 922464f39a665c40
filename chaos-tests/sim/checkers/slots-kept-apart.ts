import type { JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/** 10: a slot is one job's, a worker runs no more engines than it has slots, and at rest none is left. */
export const slotsKeptApart: Checker = (world) => {
  const open = new Map<string, Map<number, JobId>>();
  return {
    engineOpened(worker, slotIndex, jobId) {
      const slots = open.get(worker) ?? new Map<number, JobId>();
      open.set(worker, slots);
      const holder = slots.get(slotIndex);
      if (holder !== undefined)
        world.violated(10, `slot ${slotIndex} of ${worker} is given to ${jobId} while ${holder} runs in it`);
      if (slotIndex >= world.config.slots) world.violated(10, `${worker} has no slot ${slotIndex}`);
      slots.set(slotIndex, jobId);
    },
    engineClosed(worker, slotIndex) {
      open.get(worker)?.delete(slotIndex);
    },
    workerDied(worker) {
      open.delete(worker);
    },
    settled: () => [...open.values()].every((slots) => slots.size === 0),
    atRest() {
      for (const [worker, slots] of open)
        for (const [slotIndex, jobId] of slots)
          world.violated(10, `slot ${slotIndex} of ${worker} is still held for ${jobId}`);
    },
  };
};
