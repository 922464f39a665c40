import type { Scenario } from './scenario.ts';

export const leaderBetweenObjectAndPointer: Scenario = {
  name: 'leader-between-object-and-pointer',
  says: 'The metadata object of a checkpoint is written, and the leader dies before its pointer reaches etcd.',
  proxied: ['etcd'],
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.strikeAt('checkpoint', 'before', async () => {
      await stage.fault('leader killed before the pointer', () => stage.kill(leader));
    });
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
