import type { Scenario } from './scenario.ts';

export const standbyKilled: Scenario = {
  name: 'standby-killed',
  says: 'A standby is killed: nobody should notice.',
  neverRestarts: true,
  story: async (stage) => {
    const standby = await stage.standby();
    await stage.fault('standby killed', () => stage.kill(standby));
    stage.replaceLater(1_000, standby);
    await stage.checkpoints(3);
  },
};
