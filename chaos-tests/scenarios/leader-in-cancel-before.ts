import type { Scenario } from './scenario.ts';

export const leaderInCancelBefore: Scenario = {
  name: 'leader-in-cancel-before',
  says: 'The leader dies before the wish to cancel a job is durable; the client asks again.',
  proxied: ['etcd'],
  seconds: 20,
  ends: 'CANCELED',
  story: async (stage) => {
    const leader = await stage.leader();
    const cancelled = stage.job.rest().cancel(stage.job.jobId);
    cancelled.catch(() => undefined); // Awaited below, when the leader is gone.
    await stage.strikeAt('cancel', 'before', () =>
      stage.fault('leader killed in a cancellation', () => stage.kill(leader)),
    );
    stage.replaceLater(1_000, leader);
    await cancelled;
  },
};
