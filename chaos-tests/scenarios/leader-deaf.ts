import type { Scenario } from './scenario.ts';

export const leaderDeaf: Scenario = {
  name: 'leader-deaf',
  says: 'The leader hears nobody; what it sends arrives.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader deaf', () => stage.host(leader).dropIn());
    await stage.pass(6_000);
    await stage.host(leader).heal();
    await stage.checkpoints(2);
  },
};
