import type { Scenario } from './scenario.ts';

export const leaderCutOffFromWorker: Scenario = {
  name: 'leader-cut-off-from-worker',
  says: 'The leader and one worker cannot reach each other; all else is well.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const [leader, worker] = [await stage.leader(), await stage.worker()];
    await stage.fault('leader cut off from a worker', () => stage.host(leader).part([worker.place]));
    await stage.pass(6_000);
    await stage.host(leader).heal();
    await stage.checkpoints(2);
  },
};
