import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { Logger } from '../../src/kernel/log.ts';
import { type Random, SeededRandom } from '../../src/kernel/random.ts';
import type { Trace } from './trace.ts';
import type { VirtualTime } from './virtual-time.ts';

export interface ProcessTraits {
  /** Of its host: monotonic and wall clocks begin anywhere and run a little fast or slow. */
  readonly clockRate: number;
  readonly clockOriginMs: number;
  readonly wallOffsetMs: number;
}

/**
 * A process of the cluster: what runs under it, and how it stops running.
 *
 * Everything that reaches its code from outside comes through {@link enter}: timers, answers, requests,
 * watch events. A dead process is entered by nothing ever again, so each of its pending promises stays
 * pending: that is a crash at that await. A paused one is entered later, in order.
 */
export class SimProcess {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  wallOffsetMs: number;
  private state: 'running' | 'paused' | 'dead' = 'running';
  private readonly deferred: (() => void)[] = [];
  private readonly deathListeners = new Set<() => void>();

  constructor(
    readonly time: VirtualTime,
    readonly trace: Trace,
    /** Unique over restarts, e.g. `m0.2`. */
    readonly name: string,
    /** Where it runs: what partitions cut, e.g. `m0`. */
    readonly host: string,
    seed: number,
    traits: ProcessTraits,
  ) {
    this.random = new SeededRandom(seed);
    this.log = trace.logger(name);
    this.wallOffsetMs = traits.wallOffsetMs;
    this.clock = new ProcessClock(this, traits);
  }

  get dead(): boolean {
    return this.state === 'dead';
  }

  get paused(): boolean {
    return this.state === 'paused';
  }

  enter(work: () => void): void {
    if (this.state === 'running') work();
    else if (this.state === 'paused') this.deferred.push(work);
  }

  /** What is left of it in the world (its connections) hears of it at once. */
  crash(reason: string): void {
    if (this.dead) return;
    this.trace.notable(this.name, `CRASH: ${reason}`);
    this.state = 'dead';
    this.deferred.length = 0;
    for (const listener of [...this.deathListeners]) listener();
    this.deathListeners.clear();
  }

  pause(): void {
    if (this.state !== 'running') return;
    this.trace.notable(this.name, 'PAUSE');
    this.state = 'paused';
  }

  resume(): void {
    if (this.state !== 'paused') return;
    this.trace.notable(this.name, 'RESUME');
    this.state = 'running';
    // One event each, so that promises settle in between as they would have.
    for (const work of this.deferred.splice(0)) this.time.after(0, () => this.enter(work));
  }

  onDeath(listener: () => void): () => void {
    this.deathListeners.add(listener);
    return () => this.deathListeners.delete(listener);
  }

  /** A promise of this process for something outside: settles only while the process lives. */
  outside<T>(begin: (resolve: (value: T) => void, reject: (error: unknown) => void) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.dead) return;
      begin(
        (value) => this.enter(() => resolve(value)),
        (error) => this.enter(() => reject(error)),
      );
    });
  }
}

class ProcessClock implements Clock {
  constructor(
    private readonly owner: SimProcess,
    private readonly traits: ProcessTraits,
  ) {}

  nowMs(): number {
    return this.traits.clockOriginMs + this.owner.time.nowMs * this.traits.clockRate;
  }

  wallMs(): number {
    return WALL_ORIGIN_MS + this.owner.time.nowMs + this.owner.wallOffsetMs;
  }

  schedule(delayMs: number, fn: () => void): Timer {
    const { owner } = this;
    if (owner.dead) return NO_TIMER;
    let cancelled = false;
    const timer = owner.time.after(delayMs / this.traits.clockRate, () =>
      owner.enter(() => {
        if (!cancelled) fn();
      }),
    );
    return {
      cancel() {
        cancelled = true;
        timer.cancel();
      },
    };
  }
}

const NO_TIMER: Timer = { cancel() {} };
export const WALL_ORIGIN_MS = 1_700_000_000_000;
