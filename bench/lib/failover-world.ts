import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { Coordination, Watch } from '../../ha/coordination/coordination.ts';
import { createCoordination } from '../../ha/coordination/create-coordination.ts';
import { decodeLeader } from '../../ha/election/leader-record.ts';
import { ClusterKeys } from '../../ha/stores/cluster-keys.ts';
import { RestClient } from '../../src/client/rest-client.ts';
import type { LeaderInfo } from '../../src/contracts/leadership.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { newJobId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { OPTIONS } from '../../src/main/config/options.ts';
import { packJob } from '../../src/program/pack.ts';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { LocalCluster, logLines } from '../../test-support/local-cluster.ts';
import { until } from '../../test-support/until.ts';

export type FailoverMode = 'adopt' | 'restart';
export type Victim =
  | 'leader SIGKILL'
  | 'leader SIGTERM'
  | 'leader SIGSTOP'
  | 'leader and etcd leader'
  | 'leader and worker'
  | 'worker';

/** What one kill cost, in milliseconds since it. */
export interface Felt {
  readonly electedMs: number;
  readonly runningMs: number;
  /** The longest time without output of any of the jobs that are looked at closely. */
  readonly gapMs: number;
  readonly replayed: number;
  readonly lost: number;
}

interface JobRow {
  readonly state: string;
  readonly tasks: Readonly<Record<string, number>>;
}

const MASTERS = 3;
const WORKERS = 2;
/** Jobs that tick fast enough to show a short gap; the others are there for their number. */
const PROBES = 4;
const PROBE_EVERY_MS = 5;
const OTHERS_EVERY_MS = 200;
/** The pace itself shows as gaps, and the machine's noise; what came before the kill is not the kill's. */
const PATIENT = { timeoutMs: 120_000, everyMs: 20 };
const clock = new SystemClock();
const random = new SystemRandom();
const wallMs = () => performance.timeOrigin + performance.now();

/** Three masters, two workers and three etcd members as processes, with many small jobs, to be killed again and again. */
export class FailoverWorld implements AsyncDisposable {
  private leader: LeaderInfo | undefined;
  private electedAtMs = 0;

  private constructor(
    private readonly dir: string,
    private readonly etcd: EtcdCluster,
    private readonly cluster: LocalCluster,
    private readonly coordination: Coordination,
    readonly jobs: number,
    private readonly mode: FailoverMode,
  ) {}

  static async start({ jobs, mode }: { readonly jobs: number; readonly mode: FailoverMode }): Promise<FailoverWorld> {
    const dir = makeTempFolder('failover');
    const etcd = await EtcdCluster.start();
    const mayChoose = Object.values(OPTIONS).some(({ key }) => (key as string) === 'jobmaster.failover');
    const cluster = await LocalCluster.start({
      dir,
      masters: MASTERS,
      workers: WORKERS,
      // One worker may be dead.
      slotsPerWorker: jobs,
      config: [
        'high-availability.type=etcd',
        `high-availability.etcd.endpoints=${etcd.endpoints.join(',')}`,
        `high-availability.storageDir=file:${join(dir, 'objects')}`,
        // It is what is measured: killing this often is no flapping.
        'high-availability.fast-takeover.max-per-minute=10000',
        'taskmanager.memory.slot-heap.size=64 MiB',
        'restart-strategy.type=fixed-delay',
        'restart-strategy.fixed-delay.attempts=1000000',
        'restart-strategy.fixed-delay.delay=100 ms',
        'execution.checkpointing.tolerable-failed-checkpoints=1000000',
        'gc.interval=1 h',
        ...(mayChoose ? [`jobmaster.failover=${mode}`] : []),
      ],
    });
    const coordination = await createCoordination(
      { clock, random, log: silentLogger },
      { type: 'etcd', endpoints: [...etcd.endpoints], namespace: '/millrace/' },
    );
    const world = new FailoverWorld(dir, etcd, cluster, coordination, jobs, mode);
    await world.follow();
    await world.submit();
    await world.settle(world.checkpointMs);
    return world;
  }

  /** Kills, waits until all is well again, replaces the dead. */
  async kill(victim: Victim): Promise<Felt> {
    const before = this.leader;
    const leader = this.cluster.liveMasters.find(({ id }) => id === before?.replicaId);
    if (before === undefined || leader === undefined) throw new Error('nobody leads who could be killed');
    const master = victim === 'worker' ? undefined : leader;
    const etcdLeader = victim === 'leader and etcd leader' ? this.etcd.member(await this.etcd.leader()) : undefined;
    const worker = victim.endsWith('worker') ? this.cluster.liveWorkers[0] : undefined;
    const starts = this.starts();
    const killedMs = wallMs();
    const etcdDead = etcdLeader?.kill();
    worker?.process.send('SIGKILL');
    master?.process.send(signalOf(victim));
    if (master !== undefined)
      await until('the next leader', () => (this.leader?.token ?? 0n) > before.token, { ...PATIENT, everyMs: 1 });
    const electedMs = this.electedAtMs - killedMs;
    // Until it has noticed, the leader says of the dead what it knew of the living.
    if (worker !== undefined)
      await until('the loss to be noticed', () => this.starts() > starts, { ...PATIENT, everyMs: 2 });
    await this.untilRunning();
    const runningMs = this.lastToRunMs(killedMs) - killedMs;
    await etcdDead;
    await etcdLeader?.restart();
    if (victim === 'leader SIGSTOP') master?.process.resume();
    else await master?.process.exited;
    // The next tick of a job that paused must have come before the notes are read.
    await wait(2 * OTHERS_EVERY_MS);
    const felt = { electedMs, runningMs, ...this.notesSince(killedMs) };
    if (master !== undefined && victim !== 'leader SIGSTOP') await this.cluster.addMaster();
    if (worker !== undefined) await this.cluster.addWorker();
    // What is to be restored must have been stored before.
    await this.settle(this.mode === 'restart' || worker !== undefined ? this.checkpointMs : 0);
    return felt;
  }

  /** How often tasks have begun: each writer says so in its notes. */
  private starts(): number {
    return readdirSync(this.notes)
      .filter((file) => file.endsWith('.starts'))
      .reduce((sum, file) => sum + statSync(join(this.notes, file)).size, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.coordination.close();
    await this.cluster.kill();
    await this.etcd.close();
    removeTempFolder(this.dir);
  }

  private async follow(): Promise<Watch> {
    const key = new ClusterKeys('default').leader;
    const listing = await this.coordination.list(key);
    const elected = (entry: (typeof listing.entries)[number]) => {
      if (entry.key !== key) return;
      this.electedAtMs = wallMs();
      this.leader = decodeLeader(entry);
    };
    for (const entry of listing.entries) elected(entry);
    return this.coordination.watch(key, listing.revision, (event) => {
      if (event.kind === 'put') elected(event.entry);
      if (event.kind === 'reset') for (const entry of event.listing.entries) elected(entry);
    });
  }

  private async submit(): Promise<void> {
    await until('a leader', () => this.leader !== undefined, PATIENT);
    const rest = new RestClient(clock, {
      addresses: this.cluster.masters.map(({ restUrl }) => restUrl),
      patienceMs: PATIENT.timeoutMs,
    });
    mkdirSync(this.notes, { recursive: true });
    const bundle = await packJob(join(packageRoot(), 'bench/lib/failover-job.ts'));
    const jar = await rest.uploadJar('ticks.mjs', bundle);
    for (let i = 0; i < this.jobs; i++) {
      const everyMs = i < PROBES ? PROBE_EVERY_MS : OTHERS_EVERY_MS;
      const args = ['--notes', join(this.notes, String(i)), '--every-ms', String(everyMs)];
      args.push('--checkpoint-ms', String(this.checkpointMs));
      await rest.runJar(jar, { jobId: newJobId(random), programArgsList: args });
    }
  }

  /** Everybody stands by and every job runs; `moreMs` for checkpoints. */
  private async settle(moreMs = 0): Promise<void> {
    await this.untilRunning();
    await until(
      'all masters',
      async () => {
        const { replicas } = await this.ask<{ replicas: unknown[] }>('/ha');
        return replicas.length >= MASTERS;
      },
      PATIENT,
    );
    await wait(1_500 + moreMs);
    await this.untilRunning();
  }

  /** Until the leader says that every task of every job runs. Not asked all the time: it has other things to do. */
  private async untilRunning(): Promise<void> {
    await until(
      'every job to run',
      async () => {
        const { jobs } = await this.ask<{ jobs: JobRow[] }>('/jobs/overview');
        return jobs.filter(runs).length >= this.jobs;
      },
      { ...PATIENT, everyMs: 50 },
    );
  }

  /** When the last job, or task of one, began to run or was taken over, by the logs. */
  private lastToRunMs(sinceMs: number): number {
    const times = [...this.cluster.liveMasters, ...this.cluster.liveWorkers].flatMap(({ process }) =>
      logLines(process.log()).flatMap(({ time, msg, to }) =>
        time >= sinceMs && to === 'RUNNING' && (msg === 'job status' || msg === 'task changed state') ? [time] : [],
      ),
    );
    return Math.max(sinceMs, ...times);
  }

  private async ask<T>(path: string): Promise<T> {
    const response = await fetch(`${this.leader?.restUrl}${path}`, { signal: AbortSignal.timeout(3_000) });
    if (!response.ok) throw new Error(`${path} answered ${response.status}`);
    return (await response.json()) as T;
  }

  /** Some twenty a second at most: recovery is what is measured, not how much a machine can do beside it. */
  private get checkpointMs(): number {
    return Math.max(1_000, 50 * this.jobs);
  }

  private get notes(): string {
    return join(this.dir, 'notes');
  }

  private notesSince(sinceMs: number): Pick<Felt, 'gapMs' | 'replayed' | 'lost'> {
    let gapMs = 0;
    let replayed = 0;
    let lost = 0;
    for (const file of readdirSync(this.notes)) {
      if (!file.endsWith('.notes')) continue;
      const isProbe = Number.parseInt(file, 10) < PROBES;
      for (const line of readFileSync(join(this.notes, file), 'utf8').split('\n')) {
        const [kind, a, b] = line.split(' ');
        if (kind === 'gap' && isProbe && Number(b) > sinceMs) gapMs = Math.max(gapMs, Number(b) - Number(a));
        if (kind === 'again' && Number(a) > sinceMs) replayed += Number(b);
        if (kind === 'lost' && Number(a) > sinceMs) lost += Number(b);
      }
    }
    return { gapMs, replayed, lost };
  }
}

function runs({ state, tasks }: JobRow): boolean {
  return state === 'RUNNING' && (tasks.total ?? 0) > 0 && tasks.running === tasks.total;
}

function signalOf(victim: Victim): NodeJS.Signals {
  if (victim === 'leader SIGTERM') return 'SIGTERM';
  return victim === 'leader SIGSTOP' ? 'SIGSTOP' : 'SIGKILL';
}
