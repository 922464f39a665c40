import type { Clock } from '../../src/kernel/clock.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination, LeaseId } from '../coordination/coordination.ts';
import type { ElectionTimes } from './election-options.ts';
import type { KeptLease, LeaseKeeper, LeaseListener } from './lease-keeper.ts';
import { revokeLease } from './revoke-lease.ts';

export interface OwnLeaseDeps {
  readonly coordination: Coordination;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A lease that this replica has, and that is being renewed. */
export class HeldLease {
  private kept: KeptLease | undefined;
  private gone = false;
  private listener: LeaseListener | undefined;

  constructor(
    readonly id: LeaseId,
    /** By the grant: counted from when it was sent, the store cannot have begun to count earlier. */
    private readonly grantedUntilMs: number,
    keeper: LeaseKeeper,
    onGone: () => void,
  ) {
    this.kept = keeper.keep(id, {
      renewed: (aliveUntilMs) => this.listener?.renewed(aliveUntilMs),
      gone: () => {
        this.gone = true;
        onGone();
        this.listener?.gone();
      },
    });
  }

  /** Nobody keeps it any more. */
  get lost(): boolean {
    return this.gone;
  }

  /** The store keeps it at least until then, on the monotonic clock. */
  aliveUntilMs(): number {
    return Math.max(this.grantedUntilMs, this.kept?.aliveUntilMs() ?? this.grantedUntilMs);
  }

  renewSoon(): void {
    this.kept?.renewSoon();
  }

  /** From now on, instead of the listener before. */
  listen(listener: LeaseListener): void {
    this.listener = listener;
    if (this.gone) listener.gone();
  }

  release(): void {
    this.gone = true;
    this.listener = undefined;
    this.kept?.release();
    this.kept = undefined;
  }
}

/**
 * The lease with which a replica campaigns and, having won, leads. Granted when it is needed, or before:
 * a standby that holds one already takes over in a single transaction.
 */
export class OwnLease {
  private held: HeldLease | undefined;
  private granting: Promise<HeldLease> | undefined;

  constructor(
    private readonly deps: OwnLeaseDeps,
    private readonly times: ElectionTimes,
    private readonly keeper: LeaseKeeper,
  ) {}

  /** One that certainly lives for a while. Rejects while the store is away. */
  async get(): Promise<HeldLease> {
    const { held } = this;
    if (held !== undefined) {
      const leftMs = held.aliveUntilMs() - this.times.leaseMarginMs - this.deps.clock.nowMs();
      if (!held.lost && leftMs > this.times.retryMs) return held;
    }
    // One at a time, the giving back included: two callers at once must not end with two leases, one of them nobody's.
    this.granting ??= this.replace().finally(() => {
      this.granting = undefined;
    });
    return this.granting;
  }

  /** Gives the lease back, and with it whatever key is bound to it. */
  async drop(): Promise<void> {
    const { held } = this;
    if (held === undefined) return;
    this.held = undefined;
    const { lost } = held;
    held.release();
    if (!lost) await revokeLease(this.deps, held.id, this.times.retryMs);
  }

  private async replace(): Promise<HeldLease> {
    await this.drop();
    return await this.grant();
  }

  private async grant(): Promise<HeldLease> {
    const sentMs = this.deps.clock.nowMs();
    const { id, grantedTtlMs } = await this.deps.coordination.grantLease(this.times.leaseTtlMs);
    const held = new HeldLease(id, sentMs + grantedTtlMs, this.keeper, () => {
      if (this.held === held) this.held = undefined;
    });
    this.held = held;
    return held;
  }
}
