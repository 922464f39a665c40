import type { Scenario } from './scenario.ts';

export const workerKilled: Scenario = {
  name: 'worker-killed',
  says: 'A worker is killed.',
  story: async (stage) => {
    const worker = await stage.worker();
    await stage.fault('worker killed', () => stage.kill(worker));
    stage.replaceLater(500, worker);
    await stage.checkpoints(2);
  },
};
