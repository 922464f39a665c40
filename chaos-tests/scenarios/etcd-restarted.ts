import type { Scenario } from './scenario.ts';

export const etcdRestarted: Scenario = {
  name: 'etcd-restarted',
  says: 'All members of etcd are killed and started again.',
  seconds: 12,
  story: async (stage) => {
    await stage.fault('all of etcd killed', () => Promise.all(stage.etcd.members.map((member) => member.kill())));
    await stage.pass(stage.random.int(2_000));
    await Promise.all(stage.etcd.members.map((member) => member.restart()));
    await stage.leader();
    await stage.checkpoints(2);
  },
};
