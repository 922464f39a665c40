import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packJob } from '../src/program/pack.ts';
import { type CertificateFiles, TestAuthority } from '../test-support/certificates.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { RestCaller } from './rest-caller.ts';

function settings({ caFile, certFile, keyFile }: CertificateFiles): string[] {
  return [
    'security.ssl.internal.enabled=true',
    `security.ssl.internal.ca-file=${caFile}`,
    `security.ssl.internal.cert-file=${certFile}`,
    `security.ssl.internal.key-file=${keyFile}`,
  ];
}

test('a cluster with TLS on its internal ports runs jobs, and lets no worker in without a certificate of its own', async () => {
  const dir = makeTempFolder('tls');
  const keys = join(dir, 'keys');
  mkdirSync(keys);
  const member = await (await TestAuthority.create(keys, 'cluster')).issue('member');
  const stranger = await (await TestAuthority.create(keys, 'elsewhere')).issue('member');
  const common = { dir, masters: 1, workers: 2, slotsPerWorker: 2 };
  await using cluster = await LocalCluster.start({ ...common, config: settings(member) });
  const rest = new RestCaller(cluster);
  const slots = async () => (await rest.call('GET', '/overview')).body['slots-total'];
  await until('all workers to be registered', async () => (await slots()) === 4, { timeoutMs: 60_000 });

  // Strangers find the cluster by its stores, and are refused by its leader.
  const intruders = [settings(stranger), []].map((config, i) => ({
    ...common,
    masters: 0,
    workers: 1,
    config: [
      ...config,
      `taskmanager.resource-id=intruder-${i}`,
      `high-availability.embedded.dir=${join(dir, 'stores')}`,
    ],
    dir: join(dir, `intruder-${i}`),
  }));
  await using plain = await LocalCluster.start(intruders[1] as (typeof intruders)[number]);
  await using other = await LocalCluster.start(intruders[0] as (typeof intruders)[number]);

  const jar = await rest.jar('word-count.mjs', await packJob(join(packageRoot(), 'examples/word-count-entry.ts')));
  // Four slots on two workers: some channels stay within a worker, some go between them.
  const run = await rest.run(jar, { entryClass: 'WordCount', parallelism: 4 });
  expect(run.status, run.errors).toBe(200);
  expect(await rest.end(String(run.body.jobid))).toBe('FINISHED');

  for (const { workers } of [plain, other]) {
    await workers[0]?.process.untilLog(
      /"msg":"[^"]*(regist|leader)[^"]*".*(UNAVAILABLE|UNKNOWN_OUTCOME)|(UNAVAILABLE|UNKNOWN_OUTCOME)/,
      60_000,
    );
  }
  expect(await slots()).toBe(4);
  await cluster.stop();
  removeTempFolder(dir);
});
