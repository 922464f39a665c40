import type { Scenario } from './scenario.ts';

export const leaderInCheckpoint: Scenario = {
  name: 'leader-in-checkpoint',
  says: 'The leader is killed while a checkpoint is under way.',
  proxied: ['etcd'],
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.strikeAt('checkpoint id', 'while', async () => {
      await stage.pass(stage.random.int(40));
      await stage.fault('leader killed in a checkpoint', () => stage.kill(leader));
    });
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
