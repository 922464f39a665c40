import { type Clock, every, type Timer } from '../../src/kernel/clock.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination, LeaseId } from '../coordination/coordination.ts';

/**
 * Renews leases. Whose event loop that happens on is the adapter's business; what it tells is always:
 * a lease lives at least until `aliveUntilMs`, which counts from when the answered renewal was *sent*.
 */
export interface LeaseKeeper extends Closeable {
  keep(lease: LeaseId, listener: LeaseListener): KeptLease;
}

export interface LeaseListener {
  /** Each answered renewal. On the owner's clock. */
  renewed(aliveUntilMs: number): void;
  /** The store says that the lease has expired or was revoked. Told at most once; it is not kept any more. */
  gone(): void;
}

export interface KeptLease {
  /** As of now, even if `renewed` has not been told yet. Undefined before the first answer. */
  aliveUntilMs(): number | undefined;
  /** Out of turn. */
  renewSoon(): void;
  /** Renews no more; the lease is left as it is. */
  release(): void;
}

export interface KeeperTimes {
  /** Between two renewals. */
  readonly renewIntervalMs: number;
  /** After one that was not answered. */
  readonly retryMs: number;
}

export interface LoopLeaseKeeperDeps {
  readonly coordination: Pick<Coordination, 'keepAlive'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Renewals that wait for an answer at once: one hung call must not hold up the next. */
const RENEWALS_IN_FLIGHT_MAX = 3;
/** Retries are spread by this factor at most. */
export const RETRY_JITTER_MAX = 1.5;

/** Renews on the event loop that it was made on. */
export class LoopLeaseKeeper implements LeaseKeeper {
  private readonly kept = new Set<LoopKeptLease>();
  private readonly tasks: BackgroundTasks;

  constructor(
    private readonly deps: LoopLeaseKeeperDeps,
    private readonly times: KeeperTimes,
  ) {
    this.tasks = new BackgroundTasks(deps.log);
  }

  keep(lease: LeaseId, listener: LeaseListener): KeptLease {
    const kept = new LoopKeptLease(this.deps, this.times, this.tasks, lease, listener, () => this.kept.delete(kept));
    this.kept.add(kept);
    return kept;
  }

  async close(): Promise<void> {
    for (const one of [...this.kept]) one.release();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

class LoopKeptLease implements KeptLease {
  private aliveMs: number | undefined;
  private inFlight = 0;
  private released = false;
  private readonly renewing: Timer;
  private retry: Timer | undefined;

  constructor(
    private readonly deps: LoopLeaseKeeperDeps,
    private readonly times: KeeperTimes,
    private readonly tasks: BackgroundTasks,
    private readonly lease: LeaseId,
    private readonly listener: LeaseListener,
    private readonly onRelease: () => void,
  ) {
    this.renewing = every(deps.clock, times.renewIntervalMs, () => this.renewSoon());
  }

  aliveUntilMs(): number | undefined {
    return this.aliveMs;
  }

  renewSoon(): void {
    if (this.inFlight >= RENEWALS_IN_FLIGHT_MAX || this.released) return;
    this.inFlight++;
    this.tasks.run('renewal', () =>
      this.renew().finally(() => {
        this.inFlight--;
      }),
    );
  }

  release(): void {
    if (this.released) return;
    this.released = true;
    this.renewing.cancel();
    this.retry?.cancel();
    this.onRelease();
  }

  private async renew(): Promise<void> {
    const { coordination, clock, random, log } = this.deps;
    const sentMs = clock.nowMs();
    try {
      const { ttlMs } = await coordination.keepAlive(this.lease);
      this.aliveMs = Math.max(this.aliveMs ?? Number.NEGATIVE_INFINITY, sentMs + ttlMs);
      if (!this.released) this.listener.renewed(this.aliveMs);
    } catch (error) {
      if (this.released) return;
      if (isMillraceError(error, 'NOT_FOUND')) {
        this.release();
        this.listener.gone();
        return;
      }
      log.debug({ err: asError(error), lease: this.lease }, 'renewal not answered');
      // No answer says nothing: ask again soon.
      if (this.inFlight > 1) return;
      this.retry?.cancel();
      const waitMs = this.times.retryMs * (1 + (RETRY_JITTER_MAX - 1) * random.next());
      this.retry = clock.schedule(waitMs, () => this.renewSoon());
    }
  }
}
