import type { Scenario } from './scenario.ts';

export const allMastersKilled: Scenario = {
  name: 'all-masters-killed',
  says: 'All masters are killed at once; others come a second later.',
  seconds: 12,
  story: async (stage) => {
    const masters = stage.cluster.liveMasters;
    await stage.fault('all masters killed', () => stage.kill(...masters));
    stage.replaceLater(1_000, ...masters);
    await stage.leader();
    await stage.checkpoints(2);
  },
};
