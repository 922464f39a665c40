import type { Scenario } from './scenario.ts';

export const leaderCutOffFromEtcd: Scenario = {
  name: 'leader-cut-off-from-etcd',
  says: 'The leader cannot reach etcd; everybody can reach the leader.',
  needs: ['hosts'],
  seconds: 15,
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('leader cut off from etcd', () => stage.host(leader).part(stage.etcdHosts));
    await stage.pass(6_000);
    await stage.host(leader).heal();
    await stage.checkpoints(2);
  },
};
