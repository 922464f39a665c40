import type { Scenario } from './scenario.ts';

export const leaderAfterResult: Scenario = {
  name: 'leader-after-result',
  says: 'etcd has the result of the job, and the leader dies before it can clean up.',
  proxied: ['etcd'],
  seconds: 5,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.strikeAt('result', 'after', async () => {
      await stage.fault('leader killed after the result', () => stage.kill(leader));
    });
    stage.replaceLater(1_000, leader);
  },
};
