import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { LocalCluster } from '../../test-support/local-cluster.ts';
import { until } from '../../test-support/until.ts';
import { packJob } from '../program/pack.ts';

/** The command line and the documented REST conversation, against real processes. */
let folder: string;
let cluster: LocalCluster;
let masters: string;

beforeAll(async () => {
  folder = makeTempFolder('cli');
  cluster = await LocalCluster.start({ dir: folder, masters: 2, workers: 1, slotsPerWorker: 2 });
  masters = cluster.masters.map((master) => master.restUrl.replace('http://', '')).join(',');
  await until(
    'a worker',
    async () => (await cluster.get<{ 'slots-total': number }>('/overview'))['slots-total'] === 2,
    {
      timeoutMs: 30_000,
    },
  );
});

afterAll(async () => {
  await cluster?.kill();
  removeTempFolder(folder);
});

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function millrace(...args: string[]): Promise<Ran> {
  const cli = join(packageRoot(), 'dist/src/main/cli.js');
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [cli, ...args]);
    return { code: 0, out: stdout, err: stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, out: stdout, err: stderr };
  }
}

const example = (name: string) => join(packageRoot(), 'examples', name);

test('run packs a file, waits for its end and succeeds; the worker prints the counts', async () => {
  const ran = await millrace('run', example('word-count.ts'), '-m', masters);
  expect(ran).toMatchObject({ code: 0 });
  expect(ran.out).toMatch(/JobID [0-9a-f]{32}[\s\S]*FINISHED/);
  const printed = readFileSync(cluster.workers[0]?.process.logFile ?? '', 'utf8');
  expect(printed).toContain("[ 'hello', 2 ]");
  // The upload was only the job's vehicle.
  expect((await cluster.get<{ files: unknown[] }>('/jars')).files).toEqual([]);
});

test('a long job can be listed, looked at and cancelled from the command line', async () => {
  const args = ['--input', join(packageRoot(), 'examples'), '--output', join(folder, 'out'), '--rate', '1'];
  const ran = await millrace('run', example('word-count-files.ts'), '-d', '-m', masters, '--', ...args);
  expect(ran).toMatchObject({ code: 0 });
  const jobId = /JobID (\w+)/.exec(ran.out)?.[1] ?? '';
  await until('the job to be listed', async () =>
    (await millrace('list', '-m', masters)).out.includes(`${jobId} : Word count of files (RUNNING)`),
  );
  expect((await millrace('status', jobId, '-m', masters)).out).toContain('RUNNING');
  expect(await millrace('cancel', jobId, '--wait', '-m', masters)).toMatchObject({ code: 0 });
  expect((await millrace('list', '--all', '-m', masters)).out).toContain(`${jobId} : Word count of files (CANCELED)`);
  // As it would be asked again after a lost answer.
  expect(await millrace('cancel', jobId, '-m', masters)).toMatchObject({ code: 0 });
});

test('mistakes on the command line get one clear sentence and a failing code', async () => {
  const missing = await millrace('run', join(folder, 'no-such-file.ts'), '-m', masters);
  expect(missing.code).toBe(2);
  expect(missing.err).toMatch(/cannot read the job file/);
  const unknown = await millrace('status', '0'.repeat(32), '-m', masters);
  expect(unknown.code).toBe(1);
  expect(unknown.err).toMatch(/There is no job/);
  const config = await millrace('taskmanager', '-D', 'rest.prot=1', '-D', 'heartbeat.interval=soon');
  expect(config.code).toBe(2);
  expect(config.err).toMatch(/2 problems[\s\S]*unknown key "rest.prot"[\s\S]*heartbeat.interval/);
  expect(config.err).not.toMatch(/ {4}at /);
});

test('the REST conversation of the documentation works as it stands', async () => {
  const base = cluster.masters[1]?.restUrl ?? '';
  const form = new FormData();
  form.append(
    'jarfile',
    new Blob([new Uint8Array(await packJob(example('word-count-entry.ts')))]),
    'word-count-1.0.mjs',
  );
  const uploaded = (await (await fetch(`${base}/jars/upload`, { method: 'POST', body: form })).json()) as {
    filename: string;
    status: string;
  };
  expect(uploaded.status).toBe('success');
  expect(uploaded.filename).toMatch(/_word-count-1\.0\.mjs$/);

  const response = await fetch(`${base}/jars/${uploaded.filename}/run`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ entryClass: 'WordCount' }),
  });
  const { jobid } = (await response.json()) as { jobid: string };
  expect(jobid).toMatch(/^[0-9a-f]{32}$/);

  const job = await until('the job to finish', async () => {
    const answer = await cluster.get<{ state: string }>(`/v1/jobs/${jobid}`);
    return answer.state === 'FINISHED' && answer;
  });
  expect(job).toMatchObject({
    jid: jobid,
    name: 'WordCount Example',
    tasks: { total: 2, pending: 0, running: 0, finished: 2, canceling: 0, canceled: 0, failed: 0 },
  });
  expect(Object.keys(job)).toEqual(expect.arrayContaining(['start-time', 'end-time', 'duration', 'last-modification']));
});

test('handover moves the leadership to the master that is named, and does nothing for a wrong name', async () => {
  const leader = await until('a leader', () => cluster.leader());
  const other = cluster.masters.find((one) => one !== leader)?.id ?? '';
  const wrong = await millrace('handover', other, '-m', masters);
  expect(wrong.code).not.toBe(0);
  expect(wrong.err).toContain(`${leader.id} does`);
  const moved = await millrace('handover', leader.id, '--to', other, '-m', masters);
  expect(moved).toMatchObject({ code: 0 });
  expect(moved.out).toMatch(new RegExp(`${leader.id} has given up[\\s\\S]*${other} leads now`));
  const again = await millrace('handover', leader.id, '-m', masters);
  expect(again.code).not.toBe(0);
});
