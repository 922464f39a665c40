import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { type Clock, every, sleep, type Timer } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { LeaseId } from '../coordination/coordination.ts';
import type { CoordinationOptions } from '../coordination/create-coordination.ts';
import {
  type KeeperTimes,
  type KeptLease,
  type LeaseKeeper,
  type LeaseListener,
  LoopLeaseKeeper,
  type LoopLeaseKeeperDeps,
} from './lease-keeper.ts';
import {
  type FromLeaseThread,
  type LeaseThreadData,
  monotonicUs,
  type ToLeaseThread,
} from './lease-thread-protocol.ts';

export interface ThreadLeaseKeeperOptions {
  /** The compiled `lease-thread`. */
  readonly workerUrl: URL;
  /** Opened a second time, by the thread. */
  readonly coordination: CoordinationOptions;
  readonly times: KeeperTimes;
  /** How long a lease is renewed while this thread's event loop does not turn. */
  readonly patienceMs: number;
  /** The thread must be there within this, or leases are kept on this event loop (default 15,000). */
  readonly startMaxMs?: number;
}

const HEAP_MIB = 64;

/**
 * Keeps leases in a thread of its own.
 *
 * Invariant T1: a lease is never without a keeper. Should the thread end, for whatever reason, its leases are
 * renewed on this event loop from then on.
 */
export class ThreadLeaseKeeper implements LeaseKeeper {
  private readonly leases = new Map<number, ThreadKeptLease>();
  private readonly fallback: LoopLeaseKeeper;
  private readonly patting: Timer;
  private next = 0;
  private ended = false;
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly deps: LoopLeaseKeeperDeps,
    private readonly options: ThreadLeaseKeeperOptions,
    private readonly worker: Worker,
    private readonly pat: BigInt64Array,
  ) {
    this.fallback = new LoopLeaseKeeper(deps, options.times);
    this.patting = every(deps.clock, options.patienceMs / 10, () => this.giveSign());
    worker.on('message', (message: FromLeaseThread) => this.hear(message));
    worker.on('error', (error) => this.fallBack(error));
    worker.on('exit', (code) => this.fallBack(new Error(`the thread ended with code ${code}`)));
  }

  /** Resolves when the thread is ready, or has turned out not to be. Never rejects. */
  static async start(deps: LoopLeaseKeeperDeps, options: ThreadLeaseKeeperOptions): Promise<LeaseKeeper> {
    const pat = new BigInt64Array(new SharedArrayBuffer(8));
    Atomics.store(pat, 0, monotonicUs());
    const data: LeaseThreadData = {
      coordination: options.coordination,
      times: options.times,
      patienceMs: options.patienceMs,
      pat: pat.buffer as SharedArrayBuffer,
    };
    const worker = new Worker(options.workerUrl, {
      workerData: data,
      name: 'lease-keeper',
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    });
    const keeper = new ThreadLeaseKeeper(deps, options, worker, pat);
    await keeper.untilReady(deps.clock, deps.log);
    return keeper;
  }

  keep(lease: LeaseId, listener: LeaseListener): KeptLease {
    if (this.ended) return this.fallback.keep(lease, listener);
    const id = this.next++;
    const kept = new ThreadKeptLease(this.deps.clock, lease, listener, {
      tell: (kind) => this.tell({ kind, id }),
      forget: () => this.leases.delete(id),
    });
    this.leases.set(id, kept);
    this.tell({ kind: 'keep', id, lease, alive: kept.cell.buffer as SharedArrayBuffer });
    return kept;
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async shutDown(): Promise<void> {
    for (const lease of [...this.leases.values()]) lease.release();
    this.patting.cancel();
    this.tell({ kind: 'close' });
    if (!this.ended) {
      const patience = new AbortController();
      await Promise.race([once(this.worker, 'exit'), sleep(this.deps.clock, 1_000, patience.signal)]);
      patience.abort();
      await this.worker.terminate();
    }
    await this.fallback.close();
  }

  private async untilReady(clock: Clock, log: Logger): Promise<void> {
    const patience = new AbortController();
    const ready = once(this.worker, 'message').then(
      () => true,
      () => true, // Its error has been dealt with by `fallBack`.
    );
    const late = sleep(clock, this.options.startMaxMs ?? 15_000, patience.signal).then(() => false);
    if (!(await Promise.race([ready, late]))) log.warn({}, 'the lease thread takes long to start');
    patience.abort();
  }

  private giveSign(): void {
    Atomics.store(this.pat, 0, monotonicUs());
  }

  private hear(message: FromLeaseThread): void {
    if (message.kind === 'ready') return;
    const lease = this.leases.get(message.id);
    if (message.kind === 'renewed') lease?.renewed(message.aliveUntilUs);
    else lease?.gone();
  }

  private tell(message: ToLeaseThread): void {
    if (!this.ended) this.worker.postMessage(message);
  }

  private fallBack(error: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.patting.cancel();
    if (this.closing !== undefined) return;
    this.deps.log.error({ err: asError(error) }, 'the lease thread has ended, leases are kept on the main thread');
    for (const lease of this.leases.values()) lease.fallBackTo(this.fallback); // T1
  }
}

class ThreadKeptLease implements KeptLease {
  readonly cell = new BigInt64Array(new SharedArrayBuffer(8));
  private readonly originUs: bigint;
  private instead: KeptLease | undefined;
  private released = false;

  constructor(
    clock: Clock,
    private readonly lease: LeaseId,
    private readonly listener: LeaseListener,
    private readonly thread: { tell(kind: 'renew' | 'release'): void; forget(): void },
  ) {
    this.originUs = monotonicUs() - BigInt(Math.round(clock.nowMs() * 1_000));
  }

  aliveUntilMs(): number | undefined {
    const aliveUs = Atomics.load(this.cell, 0);
    const byThread = aliveUs === 0n ? undefined : this.onClock(aliveUs);
    const byLoop = this.instead?.aliveUntilMs();
    return byThread === undefined ? byLoop : Math.max(byThread, byLoop ?? byThread);
  }

  renewSoon(): void {
    if (this.instead !== undefined) this.instead.renewSoon();
    else if (!this.released) this.thread.tell('renew');
  }

  release(): void {
    if (this.released) return;
    this.released = true;
    this.instead?.release();
    this.thread.tell('release');
    this.thread.forget();
  }

  renewed(aliveUntilUs: bigint): void {
    if (!this.released) this.listener.renewed(this.onClock(aliveUntilUs));
  }

  gone(): void {
    if (this.released) return;
    this.release();
    this.listener.gone();
  }

  fallBackTo(keeper: LeaseKeeper): void {
    if (this.released) return;
    this.instead = keeper.keep(this.lease, this.listener);
    this.instead.renewSoon();
  }

  private onClock(us: bigint): number {
    return Number(us - this.originUs) / 1_000;
  }
}
