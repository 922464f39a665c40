import { CloseStack } from '../src/kernel/lifecycle.ts';
import { EtcdCluster } from '../test-support/etcd-cluster.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { type BackingStores, embeddedStores, sharedStores } from './backing-stores.ts';
import { makeKillSchedule } from './kill-schedule.ts';
import { runSchedule, type ScheduleReport, showFailure } from './run-schedule.ts';

export interface KillsOptions {
  readonly rounds: number;
  readonly seed: number;
  readonly ha: 'embedded' | 'etcd';
  /** Called with the folder of logs and output before it is removed. */
  readonly keep: (dir: string) => void;
}

/** The family of scenarios made by seed: kill schedules, one after the other, on loopback. Gives the seeds that failed. */
export async function playKillSchedules({ rounds, seed: first, ha, keep }: KillsOptions): Promise<number[]> {
  const started = new CloseStack();
  const failed: number[] = [];
  try {
    const storesFor = await openStores(ha, started);
    console.log(row('seed', 'killed (times in ms since the kill)', 'detected', 'elected', 'running', 'result'));
    for (let seed = first; seed < first + rounds; seed++)
      if (!(await playRound(seed, storesFor, keep))) failed.push(seed);
  } finally {
    await started.close();
  }
  return failed;
}

/** Gives each round stores of its own. */
async function openStores(
  ha: KillsOptions['ha'],
  started: CloseStack,
): Promise<(dir: string) => Promise<BackingStores>> {
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
  keep: (dir: string) => void,
): Promise<boolean> {
  const dir = makeTempFolder('chaos');
  try {
    const schedule = makeKillSchedule(seed);
    const stores = await storesFor(dir);
    const report = await runSchedule(schedule, { dir, stores });
    for (const line of rows(report)) console.log(line);
    const pass = report.problems.length === 0;
    if (!pass) console.log(showFailure(schedule, stores, report));
    keep(dir);
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
