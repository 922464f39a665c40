import type { Scenario } from './scenario.ts';

export const s3Killed: Scenario = {
  name: 's3-killed',
  says: 'The S3 server is away for 5 s: checkpoints fail, tasks run.',
  seconds: 14,
  neverRestarts: true,
  story: async (stage) => {
    await stage.fault('S3 killed', () => stage.s3.kill());
    await stage.pass(5_000);
    await stage.s3.restart();
    await stage.checkpoints(2);
  },
};
