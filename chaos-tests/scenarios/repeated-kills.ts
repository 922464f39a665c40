import type { Scenario } from './scenario.ts';

export const repeatedKills: Scenario = {
  name: 'repeated-kills',
  says: 'Each new leader is killed while it recovers.',
  seconds: 15,
  story: async (stage) => {
    for (let i = 0; i < 4; i++) {
      const leader = await stage.leader();
      await stage.pass(stage.random.int(500));
      await stage.fault('leader killed again', () => stage.kill(leader));
      stage.replaceLater(200, leader);
    }
    await stage.checkpoints(2);
  },
};
