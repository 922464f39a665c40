import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

/** What happens to a process when it is about to do a certain thing for the n-th time. */
export interface Ambush {
  /** The beginning of what is about to be done, e.g. `txn put checkpoints` or `call submitTasks`. */
  readonly at: string;
  readonly skip: number;
  /**
   * `crash-after`: what was begun leaves the process, which then dies.
   * `lose-workers`: no command of it reaches a worker any more, from this one on, and before long it dies.
   * `late`: this one request is held up on its way, for longer than its sender may wait, and arrives all the same.
   */
  readonly effect:
    | 'crash-before'
    | 'crash-after'
    | 'pause'
    | 'cut-etcd'
    | 'cut-all'
    | 'lose-etcd-answers'
    | 'lose-workers'
    | 'late';
  readonly forMs: number;
}

/** Faults that wait for a moment instead of a time: between two steps whose order matters. */
export class Ambushes {
  /** Told when a process was brought down, so that it is brought up again. */
  onCrash: (process: SimProcess, afterMs: number) => void = () => {};
  private readonly waiting: (Ambush & { seen: number })[] = [];

  constructor(private readonly world: SimWorld) {}

  lay(ambush: Ambush): void {
    this.waiting.push({ ...ambush, seen: 0 });
  }

  clear(): void {
    this.waiting.length = 0;
  }

  /** How long this very request is held up on its way, if that is its fate. */
  met(process: SimProcess, what: string): number | undefined {
    if (this.waiting.length === 0 || process.dead || process.host === 'c') return undefined;
    let lateMs: number | undefined;
    for (const ambush of [...this.waiting]) {
      if (!what.startsWith(ambush.at) || ambush.seen++ < ambush.skip) continue;
      this.waiting.splice(this.waiting.indexOf(ambush), 1);
      this.spring(process, ambush, what);
      if (ambush.effect === 'late') lateMs = ambush.forMs;
    }
    return lateMs;
  }

  private spring(process: SimProcess, { effect, forMs }: Ambush, what: string): void {
    const { time, network, trace } = this.world;
    trace.notable(process.name, `AMBUSH ${effect} at "${what}" for ${Math.round(forMs)} ms`);
    switch (effect) {
      case 'crash-before':
        process.crash(`before ${what}`);
        this.onCrash(process, forMs);
        return;
      case 'crash-after':
        time.after(0, () => {
          if (process.dead) return;
          process.crash(`after ${what}`);
          this.onCrash(process, forMs);
        });
        return;
      case 'lose-workers': {
        const workers = ['w0', 'w1', 'w2'];
        for (const worker of workers) network.cut(process.host, worker);
        time.after(forMs, () => {
          for (const worker of workers) network.mend(process.host, worker);
          if (process.dead || this.world.healed) return;
          process.crash(`after ${what}`);
          this.onCrash(process, forMs);
        });
        return;
      }
      case 'pause':
        time.after(0, () => process.pause());
        time.after(forMs, () => process.resume());
        return;
      case 'late':
        return;
      case 'cut-etcd':
        this.cutFor(process.host, ['etcd'], forMs);
        return;
      case 'cut-all':
        this.cutFor(process.host, ['etcd', 's3', 'm0', 'm1', 'm2', 'w0', 'w1', 'w2', 'c'], forMs);
        return;
      case 'lose-etcd-answers':
        network.cut('etcd', process.host);
        time.after(forMs, () => network.mend('etcd', process.host));
        return;
    }
  }

  private cutFor(host: string, peers: readonly string[], forMs: number): void {
    const { time, network } = this.world;
    for (const peer of peers) {
      network.cut(host, peer);
      network.cut(peer, host);
      time.after(forMs, () => {
        network.mend(host, peer);
        network.mend(peer, host);
      });
    }
  }
}
