import type { Scenario } from './scenario.ts';

export const s3Truncating: Scenario = {
  name: 's3-truncating',
  says: 'What is read from S3 breaks off, while a new leader and a new worker have to read everything.',
  proxied: ['s3'],
  seconds: 14,
  story: async (stage) => {
    const victims = [await stage.leader(), await stage.worker()];
    let left = 15;
    stage.s3Proxy.fault = ({ method }) =>
      method === 'GET' && left-- > 0 ? { kind: 'truncate', afterBytes: stage.random.int(200) } : undefined;
    await stage.fault('leader and worker killed, reads break off', () => stage.kill(...victims));
    stage.replaceLater(500, ...victims);
    await stage.checkpoints(2);
  },
};
