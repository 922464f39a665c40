import type { Scenario } from './scenario.ts';

export const checkpointCorrupt: Scenario = {
  name: 'checkpoint-corrupt',
  says: 'The metadata of the newest checkpoint is garbage when the job must be restored: it waits, says why, and goes on once the object is back.',
  seconds: 10,
  expects: ['job cannot be restored'],
  story: async (stage) => {
    const dead = [...stage.cluster.liveMasters, ...stage.cluster.liveWorkers];
    await stage.fault('all killed, newest metadata corrupt', () => stage.kill(...dead));
    const repair = await stage.spoilNewestMetadata();
    stage.replaceLater(0, ...dead);
    await stage.untilSaid('job cannot be restored');
    await repair();
    await stage.checkpoints(2);
  },
};
