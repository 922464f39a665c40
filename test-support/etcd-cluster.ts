import { join } from 'node:path';
import { releasePorts, reservePorts } from './free-ports.ts';
import { makeTempFolder, removeTempFolder } from './guardian.ts';
import { LOOPBACK, type Place } from './place.ts';
import { type ExitStatus, ManagedProcess } from './processes.ts';
import { until } from './until.ts';

export interface EtcdClusterOptions {
  /** Default 3. */
  readonly members?: number;
  /**
   * `fast`: heartbeats every 20 ms, elections after 200 ms, so that a failover of etcd itself takes
   * a fifth of a second and the granted lease is as short as asked. `default`: etcd's own 100 / 1000.
   */
  readonly timers?: 'fast' | 'default';
  /** Where each member runs, and how many there are. Default: all on this machine. */
  readonly places?: readonly Place[];
  /** Further flags for every member. */
  readonly flags?: readonly string[];
}

const TIMER_FLAGS = { fast: ['--heartbeat-interval=20', '--election-timeout=200'], default: [] };

interface Status {
  readonly memberId: string;
  readonly leaderId: string;
  readonly term: bigint;
}

/** A real etcd cluster on free loopback ports, in a temporary folder, that leaves nothing behind. */
export class EtcdCluster implements AsyncDisposable {
  readonly members: readonly EtcdMember[];
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly folder: string,
    private readonly ports: readonly number[],
    options: EtcdClusterOptions,
  ) {
    const count = ports.length / 2;
    const addresses = Array.from({ length: count }, (_, i) => {
      const place = options.places?.[i] ?? LOOPBACK;
      const client = `http://${place.address}:${ports[2 * i]}`;
      return { name: `n${i}`, place, client, peer: `http://${place.address}:${ports[2 * i + 1]}` };
    });
    const everyone = addresses.map(({ name, peer }) => `${name}=${peer}`).join(',');
    this.members = addresses.map(({ name, place, client, peer }) => {
      const flags = [
        ...['--name', name, '--data-dir', join(folder, name)],
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', everyone, '--initial-cluster-state', 'new', '--initial-cluster-token', 'millrace'],
        // Power cuts are not simulated; a killed process loses nothing of what it wrote.
        ...['--unsafe-no-fsync', '--pre-vote', '--logger', 'zap', '--log-level', 'warn'],
        ...TIMER_FLAGS[options.timers ?? 'fast'],
        ...(options.flags ?? []),
      ];
      return new EtcdMember(name, place, client, flags, join(folder, `${name}.log`));
    });
  }

  /** Resolves when every member serves. */
  static async start(options: EtcdClusterOptions = {}): Promise<EtcdCluster> {
    const ports = await reservePorts(2 * (options.places?.length ?? options.members ?? 3));
    const cluster = new EtcdCluster(makeTempFolder('etcd'), ports, options);
    try {
      await Promise.all(cluster.members.map((member) => member.start()));
      await cluster.untilHealthy();
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  /** Client URLs of all members, dead ones included. */
  get endpoints(): readonly string[] {
    return this.members.map((member) => member.endpoint);
  }

  member(index: number): EtcdMember {
    const member = this.members[index];
    if (member === undefined) throw new RangeError(`no etcd member ${index} of ${this.members.length}`);
    return member;
  }

  /** The index of the member that leads by the highest term anyone knows of; waits for an election to end. */
  leader(): Promise<number> {
    const found = until('etcd to have a leader', async () => {
      const answers = await Promise.all(this.members.map((member) => member.status().catch(() => undefined)));
      const newest = answers.reduce<Status | undefined>(
        (best, one) => (one !== undefined && (best === undefined || one.term > best.term) ? one : best),
        undefined,
      );
      const index = answers.findIndex((one) => one !== undefined && one.memberId === newest?.leaderId);
      return index < 0 ? undefined : { index };
    });
    return found.then(({ index }) => index);
  }

  /** Resolves when every member that runs (and is not paused) serves requests. */
  async untilHealthy(timeoutMs = 20_000): Promise<void> {
    await Promise.all(this.members.filter((member) => member.serving).map((member) => member.untilHealthy(timeoutMs)));
  }

  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async closeAll(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    releasePorts(this.ports);
    removeTempFolder(this.folder);
  }
}

export class EtcdMember {
  private process: ManagedProcess | undefined;
  private paused = false;

  constructor(
    readonly name: string,
    readonly place: Place,
    /** `http://host:port` */
    readonly endpoint: string,
    private readonly flags: readonly string[],
    readonly logFile: string,
  ) {}

  get running(): boolean {
    return this.process?.alive ?? false;
  }

  get serving(): boolean {
    return this.running && !this.paused;
  }

  get pid(): number | undefined {
    return this.running ? this.process?.pid : undefined;
  }

  /** Starts it, or starts it again with the data that it left; does not wait until it serves. */
  async start(): Promise<void> {
    if (this.running) throw new Error(`etcd member ${this.name} already runs`);
    this.paused = false;
    this.process = await ManagedProcess.start({
      name: `etcd ${this.name}`,
      ...this.place.command('etcd', this.flags),
      env: withoutEtcdVariables(),
      logFile: this.logFile,
    });
  }

  /** Kills it if need be, starts it with its data, and resolves when it serves. */
  async restart(): Promise<void> {
    await this.kill();
    await this.start();
    await this.untilHealthy();
  }

  async kill(): Promise<ExitStatus | undefined> {
    return this.process?.kill();
  }

  async pause(): Promise<void> {
    await this.started().pause();
    this.paused = true;
  }

  resume(): void {
    this.started().resume();
    this.paused = false;
  }

  /** Resolves when this member has a leader and answers. */
  async untilHealthy(timeoutMs = 20_000): Promise<void> {
    await until(
      `etcd ${this.name} to be healthy`,
      async () => {
        if (!this.running) return { ended: this.process?.lastWords() };
        const response = await fetch(`${this.endpoint}/health`, { signal: AbortSignal.timeout(1_000) });
        return ((await response.json()) as { health?: string }).health === 'true';
      },
      { timeoutMs },
    ).then((outcome) => {
      if (outcome !== true) throw new Error(`etcd ${this.name} ended while starting; ${outcome.ended}`);
    });
  }

  async status(): Promise<Status> {
    const response = await fetch(`${this.endpoint}/v3/maintenance/status`, {
      method: 'POST',
      body: '{}',
      signal: AbortSignal.timeout(1_000),
    });
    const body = (await response.json()) as { header: { member_id: string }; leader: string; raftTerm: string };
    return { memberId: body.header.member_id, leaderId: body.leader, term: BigInt(body.raftTerm) };
  }

  private started(): ManagedProcess {
    if (this.process === undefined) throw new Error(`etcd member ${this.name} was never started`);
    return this.process;
  }
}

/** etcd reads its flags from ETCD_* too, and one set for a client in the caller's shell would change the server. */
function withoutEtcdVariables(): Record<string, undefined> {
  const names = Object.keys(process.env).filter((name) => name.startsWith('ETCD_'));
  return Object.fromEntries(names.map((name) => [name, undefined]));
}
