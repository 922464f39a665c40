import type { Scenario } from './scenario.ts';

export const s3Slow: Scenario = {
  name: 's3-slow',
  says: 'Every call of S3 takes a second and more.',
  proxied: ['s3'],
  seconds: 14,
  neverRestarts: true,
  story: async (stage) => {
    await stage.fault('S3 slow', () => {
      stage.s3Proxy.fault = () => ({ kind: 'delay', delayMs: 1_000 });
    });
    await stage.pass(6_000);
    stage.s3Proxy.fault = () => undefined;
    await stage.checkpoints(2);
  },
};
