import { sleep } from '../../src/kernel/clock.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import type { Random } from '../../src/kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../../src/kernel/retry.ts';
import type { LeaseId } from '../coordination/coordination.ts';
import type { LeaderRetrievalDeps } from './leader-retrieval.ts';

export interface LeasedKeyDeps extends LeaderRetrievalDeps {
  readonly random: Random;
}

export interface LeasedKeyOptions {
  readonly key: string;
  readonly value: string;
  /** How long the key outlives a process that died silently. */
  readonly ttlMs: number;
  /** Default: a third of that. */
  readonly renewEveryMs?: number;
}

/**
 * Keeps one key while this process lives. Nothing is decided by it, so it has a lease of its own: losing it costs
 * a line in a list, not leadership.
 */
export class LeasedKey implements Closeable {
  private readonly stopping = new AbortController();
  private readonly tasks: BackgroundTasks;
  private lease: LeaseId | undefined;

  private constructor(
    private readonly deps: LeasedKeyDeps,
    private readonly options: LeasedKeyOptions,
  ) {
    this.tasks = new BackgroundTasks(deps.log);
  }

  /** Returns at once and writes the key in the background, for as long as it takes. */
  static start(deps: LeasedKeyDeps, options: LeasedKeyOptions): LeasedKey {
    const leased = new LeasedKey(deps, options);
    leased.tasks.run(`registration of ${options.key}`, () => leased.run());
    return leased;
  }

  async close(): Promise<void> {
    this.stopping.abort();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async run(): Promise<void> {
    const { coordination, clock, random, log } = this.deps;
    const { signal } = this.stopping;
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (this.lease === undefined) await this.register();
        else await this.renew(this.lease);
        failures = 0;
        await sleep(clock, this.options.renewEveryMs ?? this.options.ttlMs / 3, signal);
      } catch (error) {
        // An expired lease took the key with it. Any other failure says nothing of it: keep renewing.
        if (isMillraceError(error, 'NOT_FOUND')) this.lease = undefined;
        log.debug({ err: asError(error), failures }, 'registration not renewed');
        await sleep(clock, backoffMs(QUICK_BACKOFF, failures++, random), signal);
      }
    }
    if (this.lease === undefined) return;
    await coordination
      .revokeLease(this.lease)
      .catch((error: unknown) => log.debug({ err: asError(error) }, 'registration left to expire'));
  }

  private async renew(lease: LeaseId): Promise<void> {
    await this.deps.coordination.keepAlive(lease);
    const entry = await this.deps.coordination.get(this.options.key);
    // A write of an earlier try that arrived late may have bound the key to a lease that nobody renews.
    if (entry?.lease !== lease) await this.register();
  }

  private async register(): Promise<void> {
    const { key, value, ttlMs } = this.options;
    const { id } = await this.deps.coordination.grantLease(ttlMs);
    this.lease = id;
    try {
      await this.deps.coordination.txn({ guards: [], then: [{ kind: 'put', key, value, lease: id }] });
    } catch (error) {
      // Whether or not it was written, a new lease and a new write make it true.
      this.lease = undefined;
      await this.deps.coordination
        .revokeLease(id)
        .catch((cause: unknown) => this.deps.log.debug({ err: asError(cause) }, 'lease left to expire'));
      throw error;
    }
  }
}
