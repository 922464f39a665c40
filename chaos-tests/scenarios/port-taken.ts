import type { Scenario } from './scenario.ts';

export const portTaken: Scenario = {
  name: 'port-taken',
  says: 'The leader is killed, and a stranger listens on its port at once.',
  seconds: 12,
  story: async (stage) => {
    const leader = await stage.leader();
    const port = await stage.leaderPort();
    await stage.fault('leader killed, its port taken', () => stage.kill(leader));
    await using _stranger = await stage.stranger(leader, port);
    stage.replaceLater(1_000, leader);
    await stage.checkpoints(2);
  },
};
