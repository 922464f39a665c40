import type { Scenario } from './scenario.ts';

export const leaderIdle: Scenario = {
  name: 'leader-idle',
  says: 'The leader is killed while it has nothing to do but lead.',
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader killed', () => stage.kill(leader));
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
