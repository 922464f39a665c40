import type { Scenario } from './scenario.ts';

export const s3503: Scenario = {
  name: 's3-503',
  says: 'Half of all calls of S3 are answered with 503.',
  proxied: ['s3'],
  seconds: 14,
  neverRestarts: true,
  story: async (stage) => {
    await stage.fault('S3 answers 503', () => {
      stage.s3Proxy.fault = () => (stage.random.next() < 0.5 ? { kind: 'status', status: 503 } : undefined);
    });
    await stage.pass(5_000);
    stage.s3Proxy.fault = () => undefined;
    await stage.checkpoints(2);
  },
};
