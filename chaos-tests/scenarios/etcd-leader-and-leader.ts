import type { Scenario } from './scenario.ts';

export const etcdLeaderAndLeader: Scenario = {
  name: 'etcd-leader-and-leader',
  says: 'The leader and the member of etcd that leads are killed together.',
  seconds: 12,
  story: async (stage) => {
    const [leader, member] = [await stage.leader(), stage.etcd.member(await stage.etcd.leader())];
    await stage.fault('leader and etcd leader killed', () => Promise.all([stage.kill(leader), member.kill()]));
    stage.replaceLater(1_000, leader);
    await stage.pass(2_000);
    await member.restart();
    await stage.checkpoints(2);
  },
};
