import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { sharedEtcd } from '../test-support/vitest-shared.ts';
import { clusterLines, strayLines } from './checkers/cluster-logs.ts';
import { CHAOS_CONFIG } from './run-schedule.ts';
import { UntilToldRun } from './until-told-run.ts';

const PATIENT = { timeoutMs: 120_000, everyMs: 50 };

test('every worker and every master is replaced, one after the other, while a job runs: no record is lost or doubled', async () => {
  const dir = makeTempFolder('rolling');
  try {
    const { endpoints } = await sharedEtcd();
    await using cluster = await LocalCluster.start({
      dir,
      masters: 3,
      workers: 2,
      slotsPerWorker: 2,
      config: [
        ...CHAOS_CONFIG,
        `high-availability.cluster-id=rolling-${process.pid}`,
        'high-availability.type=etcd',
        `high-availability.etcd.endpoints=${endpoints.join(',')}`,
        `high-availability.storageDir=file:${join(dir, 'objects')}`,
      ],
    });
    const run = await UntilToldRun.submit(cluster, dir);
    // Behind a checkpoint, each time: there is something that must not be lost.
    const committed = async () => {
      const before = run.lines().length;
      await until('output to be committed', () => run.lines().length > before, PATIENT);
    };
    await committed();
    const first = { masters: [...cluster.masters], workers: [...cluster.workers] };
    for (const worker of first.workers) {
      await cluster.addWorker();
      expect(await worker.process.stop()).toEqual({ code: 0, signal: null });
      await committed();
    }
    for (const master of first.masters) {
      await cluster.addMaster();
      expect(await master.process.stop()).toEqual({ code: 0, signal: null });
      await committed();
    }
    // All that is left was started while the job ran.
    expect(cluster.liveMasters.some((one) => first.masters.includes(one))).toBe(false);
    expect(await run.state()).toBe('RUNNING');
    expect(await run.end()).toEqual([]);
    // Each of the first masters that led gave leadership up by itself: no lease had to expire.
    const lines = clusterLines(first.masters);
    expect(lines.some(({ msg }) => msg === 'leadership granted')).toBe(true);
    expect(lines.filter(({ msg, reason }) => msg === 'leadership revoked' && reason !== 'closing')).toEqual([]);
    expect(strayLines(cluster.masters)).toEqual([]);
  } finally {
    removeTempFolder(dir);
  }
});
