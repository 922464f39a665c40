import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import type { Scenario } from './scenario.ts';

const BLOCK_ON_SIGNAL = pathToFileURL(join(packageRoot(), 'chaos-tests/stage/block-on-signal.mjs')).href;

export const leaderBusy: Scenario = {
  name: 'leader-busy',
  says: 'The event loop of the leader is blocked for longer than its lease.',
  seconds: 12,
  // Loaded into masters for this alone: the product has no such hook.
  env: (role) => ({ NODE_OPTIONS: role === 'jobmanager' ? `--import=${BLOCK_ON_SIGNAL}` : '' }),
  story: async (stage) => {
    const leader = await stage.leader();
    await stage.fault('event loop blocked for 4 s', () => leader.process.send('SIGUSR2'));
    await stage.pass(4_500);
    await stage.checkpoints(2);
  },
};
