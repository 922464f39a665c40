import type { Scenario } from './scenario.ts';

export const leaderPausedShorter: Scenario = {
  name: 'leader-paused-shorter',
  says: 'The leader stands still for less than its lease: it must still lead, and lose nothing.',
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader paused for 0.8 s', () => leader.process.pause());
    await stage.pass(800);
    leader.process.resume();
    await stage.checkpoints(2);
  },
};
