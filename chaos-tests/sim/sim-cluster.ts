import { SimClient } from './sim-client.ts';
import { SimMaster } from './sim-master.ts';
import type { SimProcess } from './sim-process.ts';
import { SimWorker } from './sim-worker.ts';
import type { SimWorld } from './sim-world.ts';

/** The hosts of one run and what runs on them. Whatever dies is started again, sooner or later. */
export class SimCluster {
  readonly masters = new Map<string, SimMaster>();
  readonly workers = new Map<string, SimWorker>();
  readonly client: SimClient;
  private readonly pids = new Map<string, number>();

  constructor(readonly world: SimWorld) {
    this.client = new SimClient(world);
    world.believers = () =>
      [...this.masters.values()].flatMap(({ process, isLeading, token }) =>
        isLeading && token !== undefined ? [{ name: process.name, token }] : [],
      );
    world.ambushes.onCrash = (process, afterMs) => this.restartLater(process.host, afterMs);
  }

  get hosts(): readonly string[] {
    const { masters, workers } = this.world.config;
    return [
      ...Array.from({ length: masters }, (_, i) => `m${i}`),
      ...Array.from({ length: workers }, (_, i) => `w${i}`),
    ];
  }

  start(): void {
    const { random, time } = this.world;
    for (const host of this.hosts) time.after(random.next() * 200, () => this.boot(host));
    this.client.start();
  }

  process(host: string): SimProcess | undefined {
    return (this.masters.get(host) ?? this.workers.get(host))?.process;
  }

  get leader(): SimMaster | undefined {
    return [...this.masters.values()].find((master) => master.isLeading);
  }

  crash(host: string, backAfterMs: number, silently: boolean): void {
    const process = this.process(host);
    if (process === undefined || process.dead) return;
    const { network, time } = this.world;
    if (silently) network.loseHost(host);
    process.crash(silently ? 'its host is off' : 'killed');
    if (silently) time.after(backAfterMs, () => network.hostIsBack(host));
    this.restartLater(host, backAfterMs);
  }

  /** SIGTERM; a new process takes its place. */
  stop(host: string, backAfterMs: number): void {
    const one = this.masters.get(host) ?? this.workers.get(host);
    if (one === undefined || one.process.dead || one.process.paused) return;
    this.world.trace.notable(one.process.name, 'SIGTERM');
    // Killed in the end, as every supervisor does.
    this.world.time.after(3_000, () => one.process.crash('it did not stop in time'));
    one.process.onDeath(() => this.restartLater(host, backAfterMs));
    one
      .stop()
      .catch((error: unknown) => this.world.violated(0, `${one.process.name} could not stop: ${String(error)}`));
  }

  restartLater(host: string, afterMs: number): void {
    this.world.time.after(afterMs, () => this.boot(host));
  }

  /** Everything that is down or paused is brought back. */
  heal(): void {
    for (const host of this.hosts) {
      this.process(host)?.resume();
      if (this.process(host)?.dead) this.boot(host);
    }
  }

  private boot(host: string): void {
    const present = this.process(host);
    if (present !== undefined && !present.dead) return;
    const { world } = this;
    world.trace.notable(host, 'BOOT');
    if (host.startsWith('m')) {
      this.masters.set(host, SimMaster.start(world, host));
      return;
    }
    const pid = (this.pids.get(host) ?? 0) + 1;
    this.pids.set(host, pid);
    // Named by its configuration, or anew at each start; on the same port, or on another.
    const renamed = world.random.next() < 0.5;
    const moved = world.random.next() < 0.5;
    SimWorker.start(world, host, {
      taskManagerId: renamed ? `tm-${host}-${pid}` : `tm-${host}`,
      port: moved ? 7000 + pid : 7000,
      pid: 100 + pid,
    }).then(
      (worker) => this.workers.set(host, worker),
      (error: unknown) => world.violated(0, `a worker could not start: ${String(error)}`),
    );
  }
}
