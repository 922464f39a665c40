import type { Scenario } from './scenario.ts';

export const leadershipFlapping: Scenario = {
  name: 'leadership-flapping',
  says: 'The leader key is taken away again and again.',
  seconds: 15,
  story: async (stage) => {
    for (let i = 0; i < 6; i++) {
      await stage.leader();
      await stage.fault('leader key deleted', () => stage.removeKey('leader'));
      await stage.pass(200 + stage.random.int(500));
    }
    await stage.checkpoints(2);
  },
};
