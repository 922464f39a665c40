import type { Scenario } from './scenario.ts';

export const leaderBeforeResult: Scenario = {
  name: 'leader-before-result',
  says: 'The leader dies before the result of the job reaches etcd.',
  proxied: ['etcd'],
  seconds: 5,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.strikeAt('result', 'before', async () => {
      await stage.fault('leader killed before the result', () => stage.kill(leader));
    });
    stage.replaceLater(1_000, leader);
  },
};
