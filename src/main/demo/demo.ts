import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureInfra, packageRoot } from '../../../test-support/ensure-infra.ts';
import { EtcdCluster } from '../../../test-support/etcd-cluster.ts';
import { LocalCluster } from '../../../test-support/local-cluster.ts';
import { Rgw } from '../../../test-support/rgw.ts';
import { RestClient } from '../../client/rest-client.ts';
import { runJob } from '../../client/commands.ts';
import { asError } from '../../kernel/errors.ts';
import { CloseStack } from '../../kernel/lifecycle.ts';
import { SystemClock } from '../../kernel/clock.ts';
import { SystemRandom } from '../../kernel/random.ts';
import { packJob } from '../../program/pack.ts';
import { CommittedLines, checkOutput, totalWords } from './check-output.ts';
import { FailoverStory } from './failover-story.ts';
import { showTimeline } from './timeline.ts';
import { unpackText } from './text.ts';

/**
 * `npm run demo`: a word count that survives its leader.
 *
 * Three masters and two workers as processes of their own count the words of a real book. The leader,
 * then a worker, then the new leader are killed with SIGKILL in the middle. Then the committed output
 * is compared with an independent count.
 */
const FILES = 11;
/** Lines a second over all subtasks: slow enough to be killed in the middle, three times. */
const LINES_PER_SECOND = 1_000;

interface DemoOptions {
  readonly ha: 'embedded' | 'etcd';
  readonly folder: string;
  readonly print: (line: string) => void;
}

async function runDemo(options: DemoOptions): Promise<boolean> {
  const started = new CloseStack();
  try {
    return await tell(options, started);
  } finally {
    await started.close();
  }
}

async function tell(options: DemoOptions, started: CloseStack): Promise<boolean> {
  const { print, folder } = options;
  const stores = options.ha === 'etcd' ? await startStores(started, print) : [];
  const input = join(folder, 'input');
  const output = join(folder, 'output');
  mkdirSync(output, { recursive: true });
  const text = unpackText(input, FILES);
  print(
    `input    ${(text.bytes / 1e6).toFixed(1)} MB, ${text.lines} lines in ${FILES} files (the King James Bible, public domain)`,
  );

  const cluster = await LocalCluster.start({
    dir: folder,
    masters: 3,
    workers: 2,
    slotsPerWorker: 2,
    config: [
      'execution.checkpointing.interval=500 ms',
      'execution.checkpointing.tolerable-failed-checkpoints=5',
      'restart-strategy.type=fixed-delay',
      'restart-strategy.fixed-delay.attempts=100',
      'restart-strategy.fixed-delay.delay=100 ms',
      ...stores,
    ],
  });
  started.add('cluster', () => cluster.kill());
  for (const master of cluster.masters)
    print(`master   ${master.id} pid ${master.process.pid}  dashboard ${master.restUrl}`);
  for (const worker of cluster.workers) print(`worker   ${worker.id} pid ${worker.process.pid}  2 slots`);

  const clock = new SystemClock();
  const rest = new RestClient(clock, {
    addresses: cluster.masters.map((master) => master.restUrl),
    patienceMs: 30_000,
  });
  let jobId = '';
  await runJob(
    {
      rest,
      clock,
      random: new SystemRandom(),
      pack: packJob,
      print: (line) => (jobId = /JobID (\w+)/.exec(line)?.[1] ?? jobId),
    },
    {
      file: join(packageRoot(), 'examples/word-count-files.ts'),
      args: ['--input', input, '--output', output, '--parallelism', '2', '--rate', String(LINES_PER_SECOND)],
      entryClass: undefined,
      parallelism: undefined,
      detached: true,
    },
  );
  print(`job      ${jobId}: word count, parallelism 2, checkpoint every 500 ms`);

  const committed = new CommittedLines(output);
  const words = totalWords(input);
  const story = new FailoverStory({ cluster, rest, clock, jobId, progress: () => committed.count() / words, print });
  await story.untilProgress(0.2);
  await story.killLeader('first leader killed');
  await story.untilProgress(0.45);
  await story.killWorker('a worker killed');
  await story.untilProgress(0.7);
  await story.killLeader('new leader killed');
  const state = await story.untilEnd();

  print('');
  print('timeline, from the kill:');
  for (const timeline of story.timelines) print(`  ${showTimeline(timeline)}`);
  const verdict = checkOutput(input, output);
  print('');
  print(
    `job state ${state}; independent count: ${verdict.words} words, ${verdict.distinct} distinct; committed lines: ${verdict.committedLines}`,
  );
  for (const problem of verdict.problems) print(`  ${problem}`);
  const pass = state === 'FINISHED' && verdict.pass;
  print(pass ? 'PASS: every word was counted exactly once, over two dead leaders and a dead worker.' : 'FAIL');
  await cluster.stop();
  return pass;
}

/** Real etcd (three members) and a real S3 server (Ceph RADOS Gateway), as processes of this run. */
async function startStores(started: CloseStack, print: (line: string) => void): Promise<string[]> {
  await ensureInfra(['etcd', 's3']);
  print('starting three etcd members and an S3 server (about 15 s) …');
  const etcd = await EtcdCluster.start();
  started.add('etcd', () => etcd.close());
  const s3 = await Rgw.start();
  started.add('S3', () => s3.close());
  const bucket = await s3.createBucket();
  const { endpoint, credentials } = s3.access;
  print(`stores   etcd ${etcd.endpoints.join(', ')}; S3 ${endpoint}`);
  return [
    'high-availability.type=etcd',
    `high-availability.etcd.endpoints=${etcd.endpoints.join(',')}`,
    `high-availability.storageDir=s3://${bucket}/demo`,
    `s3.endpoint=${endpoint}`,
    `s3.access-key=${credentials.accessKeyId}`,
    `s3.secret-key=${credentials.secretAccessKey}`,
  ];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { ha: { type: 'string', default: 'embedded' }, keep: { type: 'boolean', default: false } },
  });
  if (values.ha !== 'embedded' && values.ha !== 'etcd')
    throw new Error(`--ha ${values.ha}: embedded and etcd are possible`);
  // Removed only after a PASS: after anything else somebody will want the logs.
  const folder = mkdtempSync(join(tmpdir(), 'millrace-demo-'));
  const print = (line: string) => console.log(line);
  try {
    const pass = await runDemo({ ha: values.ha, folder, print });
    process.exitCode = pass ? 0 : 1;
    if (values.keep || !pass) print(`logs and output are kept in ${folder}`);
    else rmSync(folder, { recursive: true });
  } catch (error) {
    print(`FAIL: ${asError(error).message}`);
    print(`logs are kept in ${folder}`);
    process.exitCode = 1;
  }
}

await main();
