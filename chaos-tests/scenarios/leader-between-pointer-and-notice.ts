import type { Scenario } from './scenario.ts';

export const leaderBetweenPointerAndNotice: Scenario = {
  name: 'leader-between-pointer-and-notice',
  says: 'etcd has the pointer of a checkpoint, and the leader dies before it can say so: sinks wait for the notice.',
  proxied: ['etcd'],
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.strikeAt('checkpoint', 'after', async () => {
      await stage.fault('leader killed before the notice', () => stage.kill(leader));
    });
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
