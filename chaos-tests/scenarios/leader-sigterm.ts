import type { Scenario } from './scenario.ts';

export const leaderSigterm: Scenario = {
  name: 'leader-sigterm',
  says: 'The leader is asked to end, and hands over.',
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader told to end', () => leader.process.stop());
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
