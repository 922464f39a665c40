import type { Scenario } from './scenario.ts';

export const leaderAndWorker: Scenario = {
  name: 'leader-and-worker',
  says: 'The leader and a worker are killed together.',
  seconds: 12,
  story: async (stage) => {
    const victims = [await stage.leader(), await stage.worker()];
    await stage.fault('leader and worker killed', () => stage.kill(...victims));
    stage.replaceLater(1_000, ...victims);
    await stage.checkpoints(2);
  },
};
