import type { Scenario } from './scenario.ts';

export const networkSlow: Scenario = {
  name: 'network-slow',
  says: '200 ms of latency and 5 % of loss on every way for 8 s, with a leader killed in the middle.',
  proxied: ['etcd', 's3'],
  seconds: 20,
  story: async (stage) => {
    await stage.fault('200 ms and 5 % loss', () => stage.slowNetwork({ delayMs: 100, loss: 0.05 }));
    await stage.pass(3_000);
    const leader = await stage.leader();
    await stage.fault('leader killed meanwhile', () => stage.kill(leader));
    stage.replaceLater(500, leader);
    await stage.pass(5_000);
    await stage.quickNetwork();
    await stage.checkpoints(2);
  },
};
