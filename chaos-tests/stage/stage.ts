import { setTimeout as wait } from 'node:timers/promises';
import type { Random } from '../../src/kernel/random.ts';
import type { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { etcdKeys, remove } from '../../test-support/etcd-history.ts';
import type { HttpFaultProxy } from '../../test-support/http-fault-proxy.ts';
import type { LatencyProxy } from '../../test-support/latency-proxy.ts';
import type { LocalCluster, Master, Worker } from '../../test-support/local-cluster.ts';
import { LabHost } from '../../test-support/net-lab.ts';
import type { Place } from '../../test-support/place.ts';
import type { Rgw } from '../../test-support/rgw.ts';
import { until } from '../../test-support/until.ts';
import { clusterLines } from '../checkers/cluster-logs.ts';
import type { JobRun } from './job-run.ts';
import { fillDisk, giveRoom } from './small-disk.ts';
import { startStranger } from './stranger.ts';
import type { World } from './world.ts';

const PATIENT = { timeoutMs: 120_000, everyMs: 25 };

/** One blow of a story; what followed is measured from it. */
export interface Fault {
  readonly what: string;
  readonly atMs: number;
}

/** Which record etcd is asked to change, as it can be told from the bytes of a request. */
export type Mutation = 'checkpoint id' | 'checkpoint' | 'job' | 'cancel' | 'result';

/** A key of the family, and a field that stands in the record alone, not in reads. */
const REQUESTS: Readonly<Record<Mutation, readonly [string, string]>> = {
  'checkpoint id': ['/counters/', '"last":'],
  checkpoint: ['/checkpoints/', '"checkpointId":'],
  job: ['/jobs/', '"submittedWallMs":'],
  cancel: ['/cancels/', '"requestedWallMs":'],
  result: ['/results/', '"endedWallMs":'],
};

const VERDICTS = { before: 'swallow', after: 'hold answers', while: 'pass' } as const;

/** What a story can do to a cluster, and see of it. */
export class Stage {
  readonly faults: Fault[] = [];
  private readonly errands: Promise<void>[] = [];

  constructor(
    readonly cluster: LocalCluster,
    readonly job: JobRun,
    readonly random: Random,
    /** Long outages as long as the scenario's text says; else shorter ones. */
    readonly long: boolean,
    private readonly world: World,
    /** Logs and output of this round. */
    private readonly dir: string,
    /** All keys of this cluster in etcd begin with it. */
    readonly root: string,
  ) {}

  get etcd(): EtcdCluster {
    return this.world.etcd;
  }

  get s3(): Rgw {
    return this.world.s3;
  }

  get s3Proxy(): HttpFaultProxy {
    return this.world.s3Proxy;
  }

  get etcdProxies(): readonly LatencyProxy[] {
    return this.world.etcdProxies;
  }

  /** Does it, and measures what follows from this moment on. */
  async fault(what: string, act: () => unknown): Promise<void> {
    this.faults.push({ what, atMs: Date.now() });
    await act();
  }

  /** By etcd's word where it can be had: logs may be late, and clocks wrong. */
  leader(): Promise<Master> {
    return until(
      'a living leader',
      async () => {
        const leader = (await this.keys('leader')).get('leader');
        const id = leader === undefined ? undefined : (JSON.parse(leader) as { replicaId: string }).replicaId;
        return this.cluster.liveMasters.find((master) => master.id === id);
      },
      PATIENT,
    );
  }

  async standby(): Promise<Master> {
    const leader = await this.leader();
    return until('a standby', () => this.cluster.liveMasters.find((master) => master !== leader), PATIENT);
  }

  /** One that runs tasks of the job. */
  worker(): Promise<Worker> {
    return until('a worker that runs tasks', () => {
      const busy = new Map<string, number>();
      for (const line of clusterLines(this.cluster.workers)) {
        if (line.msg !== 'task changed state' || line.jobId !== this.job.jobId) continue;
        if (line.to === 'RUNNING') busy.set(line.process, (busy.get(line.process) ?? 0) + 1);
        else if (line.from === 'RUNNING') busy.set(line.process, (busy.get(line.process) ?? 0) - 1);
      }
      const busiest = this.cluster.liveWorkers.filter(({ id }) => (busy.get(id) ?? 0) > 0);
      return busiest[this.random.int(Math.max(1, busiest.length))];
    });
  }

  /** With SIGKILL, together. */
  async kill(...victims: readonly (Master | Worker)[]): Promise<void> {
    await Promise.all(victims.map(({ process }) => process.kill()));
  }

  /** Another takes the place of each, as a supervisor would see to; waited for at the end of the story. */
  replaceLater(afterMs: number, ...dead: readonly (Master | Worker)[]): void {
    for (const one of dead) {
      this.errand(async () => {
        await wait(afterMs);
        if (this.cluster.masters.includes(one as Master)) await this.cluster.addMaster();
        else await this.cluster.addWorker();
      });
    }
  }

  /** Runs beside the story, which does not end before it. */
  errand(work: () => Promise<void>): void {
    const done = work();
    done.catch(() => undefined); // Looked at when the story has ended.
    this.errands.push(done);
  }

  async errandsDone(): Promise<void> {
    for (const outcome of await Promise.allSettled(this.errands))
      if (outcome.status === 'rejected') throw outcome.reason;
  }

  pass(ms: number): Promise<void> {
    return wait(ms);
  }

  /** So many further checkpoints are completed: the job runs, and is seen to. */
  async checkpoints(count: number): Promise<void> {
    let from: number | undefined;
    await until(
      `${count} further checkpoints`,
      async () => {
        const newest = (await this.newestCheckpoint()) ?? 0;
        from ??= newest;
        if (newest >= from + count) return true;
        return newest < from && (await this.job.ended()) && 'the job has ended';
      },
      PATIENT,
    ).then((outcome) => {
      if (outcome !== true) throw new Error('the job ended before the story: it was too quick');
    });
  }

  async newestCheckpoint(): Promise<number | undefined> {
    const prefix = `checkpoints/${this.job.jobId}/`;
    const ids = [...(await this.keys(prefix)).keys()].map((key) => Number(key.slice(prefix.length)));
    return ids.length === 0 ? undefined : Math.max(...ids);
  }

  /** What the cluster has in etcd under `prefix`, without its own root. */
  async keys(prefix: string): Promise<Map<string, string>> {
    let last: unknown;
    for (const member of this.etcd.members.filter(({ serving }) => serving)) {
      try {
        const found = await etcdKeys(member.endpoint, this.root + prefix);
        return new Map([...found].map(([key, value]) => [key.slice(this.root.length), value]));
      } catch (error) {
        last = error; // The next may know.
      }
    }
    throw last ?? new Error('no etcd member serves');
  }

  /** Deletes a key as an operator's mistake would. */
  async removeKey(key: string): Promise<void> {
    await remove(this.etcd.member(await this.etcd.leader()).endpoint, this.root + key);
  }

  /** The port on which the leader of this moment takes orders, by its own record. */
  async leaderPort(): Promise<number> {
    const leader = (await this.keys('leader')).get('leader') ?? '{}';
    const { rpcAddress = '' } = JSON.parse(leader) as { rpcAddress?: string };
    return Number(rpcAddress.slice(rpcAddress.lastIndexOf(':') + 1));
  }

  stranger(dead: Master, port: number): Promise<AsyncDisposable> {
    return startStranger(dead, port, this.dir);
  }

  /** Waits until a master has logged this since the last fault. */
  async untilSaid(message: string): Promise<void> {
    const sinceMs = this.faults.at(-1)?.atMs ?? 0;
    const said = () => clusterLines(this.cluster.masters).some((line) => line.msg === message && line.time >= sinceMs);
    await until(`a master to say "${message}"`, said, PATIENT);
  }

  /** Puts garbage in the place of the newest checkpoint's metadata; resolves with what puts it back. */
  async spoilNewestMetadata(): Promise<() => Promise<void>> {
    const [, record = '{}'] = [...(await this.keys(`checkpoints/${this.job.jobId}/`))].sort().at(-1) ?? [];
    const { metadata } = JSON.parse(record) as { metadata: { objectKey: string } };
    return this.world.spoil(`${this.root.split('/')[2]}/${metadata.objectKey}`);
  }

  /** Leaves no room where the output goes. */
  fillOutput(): void {
    fillDisk(this.job.outputFolder);
  }

  emptyOutput(): void {
    giveRoom(this.job.outputFolder);
  }

  /** Between the cluster and its stores by proxies, and on every host, where there are hosts, by lost packets. */
  async slowNetwork({ delayMs, loss }: { readonly delayMs: number; readonly loss: number }): Promise<void> {
    for (const proxy of this.etcdProxies) {
      proxy.delayMs = delayMs;
      proxy.lossRate = loss;
    }
    this.s3Proxy.fault = () => ({ kind: 'delay', delayMs: 2 * delayMs });
    for (const { place } of [...this.cluster.liveMasters, ...this.cluster.liveWorkers])
      if (place instanceof LabHost) await place.lose(loss);
  }

  quickNetwork(): Promise<void> {
    return this.world.heal();
  }

  /** Its host, where there are hosts. */
  host(of: { readonly place: Place }): LabHost {
    if (of.place instanceof LabHost) return of.place;
    throw new Error('this story needs hosts');
  }

  /** All etcd members, as peers to be cut off from. */
  get etcdHosts(): readonly Place[] {
    return this.etcd.members.map(({ place }) => place);
  }

  /**
   * Strikes in the middle of a write to etcd, seen by its bytes in a proxy: `before` the request reaches etcd,
   * which never gets it; `after`, when etcd has done it and nobody was told; or `while` it goes on as ever.
   * Resolves when `act` has.
   */
  async strikeAt(mutation: Mutation, when: 'before' | 'after' | 'while', act: () => Promise<void>): Promise<void> {
    const [key, field] = REQUESTS[mutation];
    const seen = new Promise<void>((resolve) => {
      let done = false;
      this.world.tap = (bytes) => {
        const text = bytes.toString('latin1');
        if (done || !text.includes(this.root) || !text.includes(key) || !text.includes(field)) return 'pass';
        done = true;
        resolve();
        return VERDICTS[when];
      };
    });
    const before = await this.keys(key.slice(1));
    await until(`a request that writes a ${mutation}`, () => Promise.race([seen.then(() => true), wait(50)]), PATIENT);
    if (when === 'after') {
      const written = async () => {
        const now = await this.keys(key.slice(1));
        return [...now].some(([name, value]) => before.get(name) !== value);
      };
      await until(`etcd to have written the ${mutation}`, written, { ...PATIENT, everyMs: 5 });
    }
    await act();
  }
}
