import type { Scenario } from './scenario.ts';

export const etcdQuorumLost: Scenario = {
  name: 'etcd-quorum-lost',
  says: 'Two of three members of etcd are away, for 60 s (6 s in the short form); the stream goes on.',
  seconds: 15,
  longSeconds: 75,
  story: async (stage) => {
    const [, ...lost] = stage.etcd.members;
    await stage.fault('etcd quorum lost', () => Promise.all(lost.map((member) => member.kill())));
    await stage.pass(stage.long ? 60_000 : 6_000);
    await stage.fault('etcd quorum back', () => Promise.all(lost.map((member) => member.restart())));
    await stage.leader();
    await stage.checkpoints(2);
  },
};
