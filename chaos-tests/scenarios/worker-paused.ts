import type { Scenario } from './scenario.ts';

export const workerPaused: Scenario = {
  name: 'worker-paused',
  says: 'A worker stands still for longer than the heartbeat time-out; its tasks go elsewhere, and it wakes up.',
  seconds: 15,
  story: async (stage) => {
    const worker = await stage.worker();
    await stage.fault('worker paused for 5 s', () => worker.process.pause());
    await stage.pass(5_000);
    worker.process.resume();
    await stage.checkpoints(2);
  },
};
