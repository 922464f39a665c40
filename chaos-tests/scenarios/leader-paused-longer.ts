import type { Scenario } from './scenario.ts';

export const leaderPausedLonger: Scenario = {
  name: 'leader-paused-longer',
  says: 'The leader stands still for longer than its lease, and wakes up believing that it leads.',
  seconds: 12,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader paused for 4 s', () => leader.process.pause());
    await stage.pass(4_000);
    leader.process.resume();
    await stage.checkpoints(2);
  },
};
