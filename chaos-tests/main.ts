import { cpSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { CloseStack } from '../src/kernel/lifecycle.ts';
import { asError } from '../src/kernel/errors.ts';
import { EtcdCluster } from '../test-support/etcd-cluster.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { type BackingStores, embeddedStores, sharedStores } from './backing-stores.ts';
import { makeKillSchedule } from './kill-schedule.ts';
import { runSchedule, type ScheduleReport, showFailure } from './run-schedule.ts';

/**
 * `npm run chaos -- [--rounds 10] [--seed 1] [--ha embedded|etcd] [--scenario kills] [--keep]`
 *
 * Plays kill schedules by seed, one after the other, and judges each. Ends with 1 when a promise was
 * broken; `--keep` keeps logs and output.
 */
interface Flags {
  readonly rounds: number;
  readonly seed: number;
  readonly ha: 'embedded' | 'etcd';
  readonly keep: boolean;
}

function parseFlags(): Flags {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '10' },
      seed: { type: 'string', default: '1' },
      ha: { type: 'string', default: 'embedded' },
      scenario: { type: 'string', default: 'kills' },
      keep: { type: 'boolean', default: false },
    },
  });
  const { ha, scenario, keep } = values;
  if (ha !== 'embedded' && ha !== 'etcd') throw new Error(`--ha ${ha}: embedded and etcd are possible`);
  if (scenario !== 'kills') throw new Error(`--scenario ${scenario}: kills is possible`);
  return { rounds: count('rounds', values.rounds, 1), seed: count('seed', values.seed, 0), ha, keep };
}

function count(flag: string, text: string, min: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min) return value;
  throw new Error(`--${flag} must be a whole number of ${min} or more, not "${text}"`);
}

/** Gives each round stores of its own. */
async function openStores(ha: Flags['ha'], started: CloseStack): Promise<(dir: string) => Promise<BackingStores>> {
  if (ha === 'embedded') return async (dir) => embeddedStores(dir);
  console.log('starting three etcd members and an S3 server …');
  const etcd = await EtcdCluster.start();
  started.add('etcd', () => etcd.close());
  // The SDK announces its own future once per process.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
  const { Rgw } = await import('../test-support/rgw.ts');
  const s3 = await Rgw.start();
  started.add('S3', () => s3.close());
  return async () => sharedStores(etcd, { ...s3.access, bucket: await s3.createBucket() });
}

async function playRound(
  seed: number,
  storesFor: (dir: string) => Promise<BackingStores>,
  keep: boolean,
): Promise<boolean> {
  const dir = makeTempFolder('chaos');
  try {
    const schedule = makeKillSchedule(seed);
    const stores = await storesFor(dir);
    const report = await runSchedule(schedule, { dir, stores });
    for (const row of rows(report)) console.log(row);
    const pass = report.problems.length === 0;
    if (!pass) console.log(showFailure(schedule, stores, report));
    if (keep) {
      const kept = join(tmpdir(), `kept-${basename(dir)}`);
      cpSync(dir, kept, { recursive: true });
      console.log(`kept: ${kept}`);
    }
    return pass;
  } finally {
    removeTempFolder(dir);
  }
}

const COLUMNS = [6, 70, 9, 8, 8, 8] as const;

function row(...cells: readonly string[]): string {
  return cells.map((cell, i) => (i === 1 ? cell.padEnd(COLUMNS[1]) : cell.padStart(COLUMNS[i] ?? 0))).join('  ');
}

function rows({ seed, kills, tookMs, problems }: ScheduleReport): string[] {
  const ms = (value: number | undefined) => (value === undefined ? '-' : String(value));
  const lines = kills.map((kill, i) =>
    row(i === 0 ? String(seed) : '', kill.what, ms(kill.detectedMs), ms(kill.electedMs), ms(kill.runningMs), ''),
  );
  lines.push(row('', `${(tookMs / 1_000).toFixed(1)} s`, '', '', '', problems.length === 0 ? 'PASS' : 'FAIL'));
  return lines;
}

async function main(): Promise<void> {
  const flags = parseFlags();
  const started = new CloseStack();
  const failed: number[] = [];
  try {
    const storesFor = await openStores(flags.ha, started);
    console.log(row('seed', 'killed (times in ms since the kill)', 'detected', 'elected', 'running', 'result'));
    for (let seed = flags.seed; seed < flags.seed + flags.rounds; seed++)
      if (!(await playRound(seed, storesFor, flags.keep))) failed.push(seed);
  } finally {
    await started.close();
  }
  console.log(
    `${flags.rounds - failed.length} of ${flags.rounds} passed${failed.length > 0 ? `; failed: ${failed}` : ''}`,
  );
  process.exitCode = failed.length === 0 ? 0 : 1;
}

try {
  await main();
} catch (error) {
  console.error(`chaos: ${asError(error).message}`);
  process.exitCode = 1;
}
