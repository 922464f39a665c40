import type { Scenario } from './scenario.ts';

export const workerCutOff: Scenario = {
  name: 'worker-cut-off',
  says: 'A worker can reach nobody for longer than the heartbeat time-out, and goes on working meanwhile.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const worker = await stage.worker();
    await stage.fault('worker cut off for 6 s', () => stage.host(worker).cut());
    await stage.pass(6_000);
    await stage.host(worker).heal();
    await stage.checkpoints(2);
  },
};
