import type { Scenario } from './scenario.ts';

export const leaderMute: Scenario = {
  name: 'leader-mute',
  says: 'The leader hears everybody, and nobody hears the leader.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader mute', () => stage.host(leader).dropOut());
    await stage.pass(6_000);
    await stage.host(leader).heal();
    await stage.checkpoints(2);
  },
};
