import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster, type Master } from '../test-support/local-cluster.ts';
import { makeBuild } from '../test-support/other-build.ts';
import { LOOPBACK } from '../test-support/place.ts';
import { until } from '../test-support/until.ts';
import { sharedEtcd } from '../test-support/vitest-shared.ts';
import { clusterLines } from './checkers/cluster-logs.ts';
import { CHAOS_CONFIG } from './run-schedule.ts';
import { UntilToldRun } from './until-told-run.ts';

const PATIENT = { timeoutMs: 120_000, everyMs: 50 };

/** As the next version would be that adds fields to every record in coordination and to every message. */
const ADDS = [
  {
    where: 'dist/ha/stores/record-codec.js',
    from: /\{ v: type\.version, /,
    to: '{ v: type.version, addedLater: true, ',
  },
  {
    where: 'dist/src/rpc/wire.js',
    from: /(metadata\.set\(PROTOCOL_KEY[^;]*;)/,
    to: "$1 metadata.set('later-key', '1');",
  },
];

/** As a version would be whose records and messages an earlier one would misunderstand. */
const DIFFERS = [
  { where: 'dist/ha', from: /version: 1\b/g, to: 'version: 2' },
  { where: 'dist/src/rpc/wire.js', from: /PROTOCOL_VERSION = 1\b/, to: 'PROTOCOL_VERSION = 2' },
];

test('masters of two versions side by side: what is only added to is led by either in turn, what differs is refused and harms nothing', async () => {
  const dir = makeTempFolder('versions');
  try {
    const adds = makeBuild(join(dir, 'adds'), ADDS);
    const differs = makeBuild(join(dir, 'differs'), DIFFERS);
    const builds = new Map([
      [1, adds],
      [2, differs],
    ]);
    const { endpoints } = await sharedEtcd();
    await using cluster = await LocalCluster.start({
      dir,
      masters: 2,
      workers: 1,
      slotsPerWorker: 2,
      config: [
        ...CHAOS_CONFIG,
        `high-availability.cluster-id=versions-${process.pid}`,
        'high-availability.type=etcd',
        `high-availability.etcd.endpoints=${endpoints.join(',')}`,
        `high-availability.storageDir=file:${join(dir, 'objects')}`,
      ],
      seat: async (role, index) => {
        const build = role === 'jobmanager' ? builds.get(index) : undefined;
        return { place: LOOPBACK, ...(build === undefined ? {} : { build }) };
      },
    });
    const [ours, later] = cluster.masters as [Master, Master];
    const run = await UntilToldRun.submit(cluster, dir);
    const committed = async () => {
      const before = run.lines().length;
      await until('output to be committed', () => run.lines().length > before, PATIENT);
    };
    const leads = (master: Master) =>
      until(`${master.id} to lead`, async () => (await cluster.leader())?.id === master.id, PATIENT);
    const saysUpgrade = (processes: LocalCluster['masters'] | LocalCluster['workers'], sinceMs: number) =>
      clusterLines(processes).some((line) => line.time >= sinceMs && /upgrade/.test(JSON.stringify(line)));
    await committed();

    // Whoever was first: each version leads once, and takes over from the other.
    for (let i = 0; i < 2; i++) {
      const { leader } = await cluster.get<{ leader: { id: string; token: string } }>('/ha');
      const to = leader.id === ours.id ? later : ours;
      const asked = await fetch(`${ours.restUrl}/ha/handover`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ leader: leader.id, token: leader.token, to: to.id }),
      });
      expect(asked.status).toBe(200);
      await leads(to);
      await committed();
    }
    const adopted = clusterLines(cluster.masters).filter(({ msg }) => msg === 'job adopted');
    expect(new Set(adopted.map(({ process }) => process))).toEqual(new Set([ours.id, later.id]));
    expect(adopted.every(({ complete }) => complete === true)).toBe(true);
    expect(saysUpgrade(cluster.masters, 0) || saysUpgrade(cluster.workers, 0)).toBe(false);

    // Leadership falls to a master that the workers do not understand: they say so, and their tasks go on.
    const fallsMs = Date.now();
    const stranger = await cluster.addMaster();
    await Promise.all([ours, later].map((master) => master.process.kill('SIGKILL')));
    await until('the stranger to lead', () => stranger.process.log().includes('leadership granted'), PATIENT);
    await until('its workers to refuse it', () => saysUpgrade(cluster.workers, fallsMs), PATIENT);
    await until('the stranger to hear why', () => saysUpgrade([stranger], fallsMs), PATIENT);
    const standby = await cluster.addMaster();
    await until('a standby to refuse it', () => saysUpgrade([standby], fallsMs), PATIENT);
    await stranger.process.kill('SIGKILL');
    await leads(standby);
    await committed();
    expect(await run.end()).toEqual([]);
    // Given up by a leader that could not reach it, the worker may have been given its tasks anew, but not by the stranger.
    const deployed = clusterLines([stranger]).filter(({ msg }) => msg === 'job deployed' || msg === 'regions deployed');
    expect(deployed).toEqual([]);
  } finally {
    removeTempFolder(dir);
  }
});
