import type { Scenario } from './scenario.ts';

export const leaderCutOff: Scenario = {
  name: 'leader-cut-off',
  says: 'The cable of the leader is pulled: no reset, no refusal, nothing.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader cut off', () => stage.host(leader).cut());
    await stage.pass(6_000);
    await stage.host(leader).heal();
    await stage.checkpoints(2);
  },
};
