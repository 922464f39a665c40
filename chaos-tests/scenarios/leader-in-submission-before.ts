import type { Scenario } from './scenario.ts';

export const leaderInSubmissionBefore: Scenario = {
  name: 'leader-in-submission-before',
  says: 'The leader dies before a submitted job is durable; the client asks again.',
  proxied: ['etcd'],
  submitsItself: true,
  story: async (stage) => {
    const jarId = await stage.job.upload();
    const leader = await stage.leader();
    const submitted = stage.job.run(jarId);
    submitted.catch(() => undefined); // Awaited below, when the leader is gone.
    await stage.strikeAt('job', 'before', () => stage.fault('leader killed in a submission', () => stage.kill(leader)));
    stage.replaceLater(1_000, leader);
    await submitted;
    await stage.job.deleteJar(jarId);
    await stage.checkpoints(2);
  },
};
