import type { Scenario } from './scenario.ts';

export const etcdLeaderKilled: Scenario = {
  name: 'etcd-leader-killed',
  says: 'The member of etcd that leads is killed; millrace goes on.',
  neverRestarts: true,
  story: async (stage) => {
    const member = stage.etcd.member(await stage.etcd.leader());
    await stage.fault('etcd leader killed', () => member.kill());
    await stage.pass(2_000);
    await member.restart();
    await stage.checkpoints(2);
  },
};
