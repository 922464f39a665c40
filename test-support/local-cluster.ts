import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from './ensure-infra.ts';
import { LOOPBACK, type Place } from './place.ts';
import { ManagedProcess } from './processes.ts';

export interface LocalClusterOptions {
  /** Logs, caches, and the embedded stores. */
  readonly dir: string;
  readonly masters: number;
  readonly workers: number;
  readonly slotsPerWorker: number;
  /** `key=value` for every process: where the stores are, timeouts. Default: the embedded stores in `dir`. */
  readonly config?: readonly string[];
  /** REST port of master 0, 1, …; absent: any free one. */
  readonly restPorts?: readonly number[];
  readonly env?: Readonly<Record<string, string>>;
  /** Where each process runs, and what it gets on top. Default: all on this machine. */
  readonly seat?: (role: 'jobmanager' | 'taskmanager', index: number) => Promise<Seat>;
}

export interface Seat {
  readonly place: Place;
  readonly env?: Readonly<Record<string, string>>;
  readonly config?: readonly string[];
  /** Root folder of another build of the package; see `makeBuild`. Default: this one. */
  readonly build?: string;
}

/** One line of a process's log, as pino writes it. */
export interface LogLine {
  /** Epoch milliseconds. */
  readonly time: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/**
 * Masters and workers as separate processes on this machine: `millrace jobmanager` and
 * `millrace taskmanager`, exactly as a user would start them.
 */
export class LocalCluster implements AsyncDisposable {
  readonly masters: Master[] = [];
  readonly workers: Worker[] = [];
  /** Counted here, not by those that have started: several may be starting at once. */
  private nextMaster: number;
  private nextWorker: number;

  private constructor(private readonly options: LocalClusterOptions) {
    this.nextMaster = options.masters;
    this.nextWorker = options.workers;
  }

  /** Resolves when every master serves REST; workers register by themselves. */
  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    mkdirSync(options.dir, { recursive: true });
    const cluster = new LocalCluster(options);
    try {
      const masters = Array.from({ length: options.masters }, (_, i) => Master.start(options, i));
      const workers = Array.from({ length: options.workers }, (_, i) => Worker.start(options, i));
      const started = await Promise.allSettled([...masters, ...workers]);
      for (const one of started) {
        if (one.status === 'fulfilled')
          (one.value instanceof Master ? cluster.masters : cluster.workers).push(one.value as never);
      }
      const failed = started.find((one) => one.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      return cluster;
    } catch (error) {
      await cluster.kill();
      throw error;
    }
  }

  /** Starts one more worker, as an operator would after losing one. */
  async addWorker(): Promise<Worker> {
    const worker = await Worker.start(this.options, this.nextWorker++);
    this.workers.push(worker);
    return worker;
  }

  /** Starts one more master. */
  async addMaster(): Promise<Master> {
    const master = await Master.start(this.options, this.nextMaster++);
    this.masters.push(master);
    return master;
  }

  get liveMasters(): readonly Master[] {
    return this.masters.filter((master) => master.process.alive);
  }

  get liveWorkers(): readonly Worker[] {
    return this.workers.filter((worker) => worker.process.alive);
  }

  /** Asks the first master that answers; any of them speaks for the leader. */
  async get<T>(path: string): Promise<T> {
    let last: unknown = new Error('no master is alive');
    for (const master of this.liveMasters) {
      try {
        const response = await fetch(`${master.restUrl}${path}`, { signal: AbortSignal.timeout(3_000) });
        if (response.ok) return (await response.json()) as T;
        last = new Error(
          `${master.restUrl}${path} answered ${response.status}: ${(await response.text()).slice(0, 500)}`,
        );
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }

  /** The master that says of itself that it leads, among those alive. */
  async leader(): Promise<Master | undefined> {
    for (const master of this.liveMasters) {
      try {
        const response = await fetch(`${master.restUrl}/ha`, { signal: AbortSignal.timeout(2_000) });
        const ha = (await response.json()) as { leader?: { id: string } | null };
        const leader = this.liveMasters.find((one) => one.id === ha.leader?.id);
        if (leader !== undefined) return leader;
      } catch {
        // A master that is just dying cannot be asked; the next one can.
      }
    }
    return undefined;
  }

  /** Politely: hands over, ends tasks, leaves nothing. */
  async stop(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.process.stop()));
    await Promise.all(this.masters.map((master) => master.process.stop()));
  }

  async kill(): Promise<void> {
    await Promise.all([...this.masters, ...this.workers].map((one) => one.process.kill()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

export class Master {
  private constructor(
    readonly id: string,
    readonly process: ManagedProcess,
    readonly restUrl: string,
    readonly place: Place,
  ) {}

  static async start(options: LocalClusterOptions, index: number): Promise<Master> {
    const id = `jobmanager-${index}`;
    const seat = await seatOf(options, 'jobmanager', index);
    const process = await startRole('jobmanager', id, options, seat, [
      `jobmanager.id=${id}`,
      'jobmanager.rpc.port=0',
      `rest.port=${options.restPorts?.[index] ?? 0}`,
      ...addressed(seat.place, ['jobmanager.bind-host', 'jobmanager.rpc.address', 'rest.bind-address', 'rest.address']),
    ]);
    const match = await process.untilLog(/"restUrl":"([^"]+)".*"msg":"jobmanager started"/, 60_000);
    return new Master(id, process, match[1] ?? '', seat.place);
  }
}

export class Worker {
  private constructor(
    readonly id: string,
    readonly process: ManagedProcess,
    readonly place: Place,
  ) {}

  static async start(options: LocalClusterOptions, index: number): Promise<Worker> {
    const id = `taskmanager-${index}`;
    const seat = await seatOf(options, 'taskmanager', index);
    const process = await startRole('taskmanager', id, options, seat, [
      `taskmanager.resource-id=${id}`,
      `taskmanager.numberOfTaskSlots=${options.slotsPerWorker}`,
      ...addressed(seat.place, ['taskmanager.bind-host', 'taskmanager.host']),
    ]);
    await process.untilLog('"msg":"taskmanager started"', 60_000);
    return new Worker(id, process, seat.place);
  }
}

/** Loopback is what all these keys are by default. */
function addressed(place: Place, keys: readonly string[]): string[] {
  return place === LOOPBACK ? [] : keys.map((key) => `${key}=${place.address}`);
}

async function seatOf(options: LocalClusterOptions, role: 'jobmanager' | 'taskmanager', index: number): Promise<Seat> {
  return (await options.seat?.(role, index)) ?? { place: LOOPBACK };
}

function startRole(
  role: string,
  name: string,
  options: LocalClusterOptions,
  seat: Seat,
  own: readonly string[],
): Promise<ManagedProcess> {
  const stores = options.config ?? [];
  const settings = [
    `high-availability.embedded.dir=${join(options.dir, 'stores')}`,
    `io.tmp.dirs=${join(options.dir, 'tmp', name)}`,
    ...own,
    ...stores,
    ...(seat.config ?? []),
  ];
  const cli = join(seat.build ?? packageRoot(), 'dist/src/main/cli.js');
  const env = { ...options.env, ...seat.env };
  return ManagedProcess.start({
    name,
    ...seat.place.command(process.execPath, [cli, role, ...settings.flatMap((setting) => ['-D', setting])]),
    logFile: join(options.dir, 'logs', `${name}.log`),
    ...(Object.keys(env).length === 0 ? {} : { env }),
  });
}

/** Parses what can be parsed of a log; other lines (a crash's stack, say) are left out. */
export function logLines(text: string): LogLine[] {
  const lines: LogLine[] = [];
  for (const line of text.split('\n')) {
    if (!line.startsWith('{')) continue;
    try {
      lines.push(JSON.parse(line) as LogLine);
    } catch {
      // The last line may be half written.
    }
  }
  return lines;
}
