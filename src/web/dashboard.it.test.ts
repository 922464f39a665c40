import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { LocalCluster, type Master } from '../../test-support/local-cluster.ts';
import { until } from '../../test-support/until.ts';
import { runJob } from '../client/commands.ts';
import { RestClient } from '../client/rest-client.ts';
import { SystemClock } from '../kernel/clock.ts';
import { SystemRandom } from '../kernel/random.ts';
import { unpackText } from '../main/demo/text.ts';
import { packJob } from '../program/pack.ts';

/**
 * The dashboard in a real browser against a real cluster. With MILLRACE_SCREENSHOT=docs/dashboard.png the
 * picture of the README is taken on the way.
 */
let folder: string;
let cluster: LocalCluster;
let browser: Browser;
let page: Page;
let jobId = '';

beforeAll(async () => {
  folder = makeTempFolder('dashboard');
  cluster = await LocalCluster.start({
    dir: folder,
    masters: 3,
    workers: 2,
    slotsPerWorker: 2,
    config: [
      'execution.checkpointing.interval=500 ms',
      'restart-strategy.type=fixed-delay',
      'restart-strategy.fixed-delay.attempts=10',
    ],
  });
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-dev-shm-usage',
      '--disable-gpu',
      '--disable-background-networking',
      '--no-first-run',
    ],
  });
  page = await browser.newPage({ viewport: { width: 1280, height: 860 } });
});

afterAll(async () => {
  await browser?.close();
  await cluster?.kill();
  removeTempFolder(folder);
});

const text = async (testId: string) => (await page.getByTestId(testId).textContent()) ?? '';
const shows = (testId: string, pattern: RegExp, timeoutMs = 30_000) =>
  until(`${testId} to show ${pattern}`, async () => pattern.test(await text(testId)), { timeoutMs, everyMs: 100 });

async function leader(): Promise<Master> {
  return until('a leader', () => cluster.leader());
}

test('an idle cluster shows its masters, workers and that there are no jobs', async () => {
  const first = await leader();
  await page.goto(first.restUrl);
  await shows('banner', new RegExp(`${first.id} leads under token \\d+; 2 standing by`));
  await shows('workers', /taskmanager-0[\s\S]*taskmanager-1/);
  // Any of the three may lead, so the rows' order says nothing about their roles.
  const masters = await text('masters');
  expect(masters.match(/LEADER/g)).toHaveLength(1);
  expect(masters.match(/STANDBY/g)).toHaveLength(2);
  expect(await text('jobs')).toContain('No jobs yet');
});

test('a running job shows its vertices, its records and its checkpoints, live', async () => {
  const input = join(folder, 'input');
  const output = join(folder, 'output');
  mkdirSync(output);
  unpackText(input, 4);
  const clock = new SystemClock();
  const rest = new RestClient(clock, { addresses: cluster.masters.map((one) => one.restUrl), patienceMs: 30_000 });
  const print = (line: string) => {
    jobId = /JobID (\w+)/.exec(line)?.[1] ?? jobId;
  };
  await runJob(
    { rest, clock, random: new SystemRandom(), pack: packJob, print },
    {
      file: join(packageRoot(), 'examples/word-count-files.ts'),
      args: ['--input', input, '--output', output, '--parallelism', '2', '--rate', '300'],
      entryClass: undefined,
      parallelism: undefined,
      detached: true,
    },
  );
  await shows('jobs', /Word count of files[\s\S]*RUNNING/);
  await page.getByRole('link', { name: 'Word count of files' }).click();
  await shows('vertices', /Source[\s\S]*RUNNING/);
  await shows('checkpoints', /[1-9]\d* completed/);
  const before = await text('vertices');
  await until('the counters to move', async () => (await text('vertices')) !== before, { timeoutMs: 20_000 });
});

test('when the leader that serves the page dies, the page goes on with the next leader', async () => {
  const dying = await leader();
  const survivors = cluster.masters.filter((one) => one !== dying).map((one) => one.id);
  await dying.process.kill('SIGKILL');
  await shows('banner', new RegExp(`(${survivors.join('|')}) leads`), 60_000);
  await shows('job', /RUNNING/, 60_000);
  // Also when the dead master has been forgotten: the page still comes from its address.
  await until(`${dying.id} to be forgotten`, async () => {
    const { replicas } = await cluster.get<{ replicas: { id: string }[] }>('/ha');
    return replicas.every(({ id }) => id !== dying.id);
  });
  const before = await text('vertices');
  await until('the counters to move', async () => (await text('vertices')) !== before, { timeoutMs: 20_000 });
  await page.goto(`${page.url().split('#')[0]}#/`);
  await shows('events', /leader-elected/);
  const screenshot = process.env.MILLRACE_SCREENSHOT;
  if (screenshot !== undefined) await page.screenshot({ path: screenshot });
});

test('cancel on the page cancels the job', async () => {
  page.on('dialog', (dialog) => void dialog.accept());
  await page.goto(`${(await leader()).restUrl}/#/jobs/${jobId}`);
  await page.reload();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await shows('job', /CANCELED/, 60_000);
});

test('when no master is left the page says so', async () => {
  await Promise.all(cluster.masters.map((one) => one.process.kill('SIGKILL')));
  await shows('banner', /No master answers/);
});
