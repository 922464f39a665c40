import type { Scenario } from './scenario.ts';

export const diskFull: Scenario = {
  name: 'disk-full',
  says: 'The disk that takes the output is full for 3 s.',
  needs: ['root'],
  sink: 'files',
  outputBytes: 4 * 1024 * 1024,
  seconds: 12,
  story: async (stage) => {
    await stage.fault('disk full', () => stage.fillOutput());
    await stage.pass(3_000);
    await stage.fault('disk has room', () => stage.emptyOutput());
    await stage.checkpoints(2);
  },
};
