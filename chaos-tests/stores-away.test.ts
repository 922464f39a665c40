import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packJob } from '../src/program/pack.ts';
import { EtcdCluster } from '../test-support/etcd-cluster.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { Rgw } from '../test-support/rgw.ts';
import { until } from '../test-support/until.ts';
import { StoreInspector } from './checkers/check-stores.ts';
import { clusterLines, strayLines } from './checkers/cluster-logs.ts';
import { RestCaller } from './rest-caller.ts';

const PATIENT = { timeoutMs: 60_000, everyMs: 50 };

async function inFolder(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = makeTempFolder('stores-away');
  try {
    await work(dir);
  } finally {
    removeTempFolder(dir);
  }
}

/** Stands where a server should be, and waits until it has turned away `tries` connections. */
async function untilTried(endpoint: string, tries: number): Promise<void> {
  let refused = 0;
  const server = createServer((socket) => {
    refused++;
    socket.destroy();
  });
  server.listen(Number(new URL(endpoint).port), '127.0.0.1');
  await once(server, 'listening');
  try {
    await until(`${tries} attempts to connect to ${endpoint}`, () => refused >= tries, PATIENT);
  } finally {
    server.close();
    await once(server, 'close');
  }
}

const wordCount = () => packJob(join(packageRoot(), 'examples/word-count-entry.ts'));

async function expectWordCountRuns(rest: RestCaller, jarId: string): Promise<void> {
  const run = await rest.run(jarId, { entryClass: 'WordCount' });
  expect(run.status, run.errors).toBe(200);
  expect(await rest.end(String(run.body.jobid))).toBe('FINISHED');
}

test(
  'etcd away at the start: masters and workers wait, say so once, and work when it comes',
  { timeout: 300_000 },
  () =>
    inFolder(async (dir) => {
      await using etcd = await EtcdCluster.start({ members: 1 });
      await etcd.member(0).kill();
      await using cluster = await LocalCluster.start({
        dir,
        masters: 2,
        workers: 1,
        slotsPerWorker: 1,
        config: [
          'high-availability.type=etcd',
          `high-availability.etcd.endpoints=${etcd.endpoints.join(',')}`,
          `high-availability.storageDir=file:${join(dir, 'objects')}`,
        ],
      });
      const processes = [...cluster.masters, ...cluster.workers];
      const rest = new RestCaller(cluster);
      const away = (id: string) =>
        clusterLines([...cluster.masters])
          .concat(clusterLines([...cluster.workers]))
          .filter((line) => line.process === id && line.msg === 'coordination store away, retrying');
      for (const { id } of processes) await until(`${id} to say that etcd is away`, () => away(id).length > 0, PATIENT);

      for (const master of cluster.masters) {
        expect((await rest.once('GET', '/health', {}, master)).status).toBe(200);
        expect((await rest.once('GET', '/ha', {}, master)).body.leader).toBeNull();
        const answer = await rest.once('GET', '/jobs', {}, master);
        expect(answer.status).toBe(503);
        expect(answer.headers.get('retry-after')).toBe('1');
        expect(answer.errors).toMatch(/No leader is known right now/);
      }
      // Dozens of tries must not be dozens of lines.
      await untilTried(etcd.member(0).endpoint, 40);
      for (const { id, process } of processes) {
        expect(process.alive, process.lastWords()).toBe(true);
        // Each that watches a part of the store says it once.
        const watchers = new Set(away(id).map(({ component, prefix }) => `${component} ${prefix}`));
        expect(away(id).length, process.lastWords()).toBe(watchers.size);
        expect(process.log().split('\n').length, process.lastWords()).toBeLessThan(30);
      }

      await etcd.member(0).restart();
      await until('a leader', () => cluster.leader(), PATIENT);
      await expectWordCountRuns(rest, await rest.jar('word-count.mjs', await wordCount()));
      for (const { process } of processes) expect(process.alive, process.lastWords()).toBe(true);
      expect(strayLines(cluster.masters)).toEqual([]);
      await cluster.stop();
    }),
);

test(
  'S3 away: submissions are refused with a reason and nothing is stored; afterwards they work',
  { timeout: 300_000 },
  () =>
    inFolder(async (dir) => {
      await using s3 = await Rgw.start();
      const { endpoint, credentials } = s3.access;
      const stores = [
        `high-availability.embedded.dir=${join(dir, 'stores')}`,
        `high-availability.storageDir=s3://${await s3.createBucket()}/away`,
        `s3.endpoint=${endpoint}`,
        `s3.access-key=${credentials.accessKeyId}`,
        `s3.secret-key=${credentials.secretAccessKey}`,
      ];
      await using cluster = await LocalCluster.start({
        dir,
        masters: 2,
        workers: 1,
        slotsPerWorker: 1,
        config: stores,
      });
      await using inspector = await StoreInspector.open(stores);
      const rest = new RestCaller(cluster);
      const jarId = await rest.jar('word-count.mjs', await wordCount());
      await expectWordCountRuns(rest, jarId);
      const inventory = await rest.inventory();
      const quiet = async () =>
        [...(await inspector.contents()).keys.values()].every((value) => !/"dirty":true/.test(value));
      await until('the job to be cleaned up', quiet, PATIENT);
      const before = await inspector.contents();

      await s3.kill();
      for (const master of cluster.masters) {
        const form = new FormData();
        form.append('jarfile', new Blob([new Uint8Array(await wordCount())]), 'other.mjs');
        const upload = await rest.once('POST', '/jars/upload', { body: form }, master);
        const init = {
          body: JSON.stringify({ entryClass: 'WordCount' }),
          headers: { 'content-type': 'application/json' },
        };
        const run = await rest.once('POST', `/jars/${jarId}/run`, init, master);
        for (const answer of [upload, run]) {
          expect(answer).toMatchObject({ status: 503, body: { code: 'UNAVAILABLE' } });
          expect(answer.headers.get('retry-after')).toBe('1');
          expect(answer.errors).toMatch(/s3:\/\/.*(cannot be reached|does not answer|ECONNREFUSED)/);
          expect(answer.errors).not.toContain(credentials.secretAccessKey);
        }
      }
      expect(await rest.inventory()).toEqual(inventory);

      await s3.restart();
      const after = await until('S3 to answer', () => inspector.contents(), PATIENT);
      expect([...after.objects].sort()).toEqual([...before.objects].sort());
      expect([...after.keys.keys()].sort()).toEqual([...before.keys.keys()].sort());
      await expectWordCountRuns(rest, jarId);
      await cluster.stop();
    }),
);
