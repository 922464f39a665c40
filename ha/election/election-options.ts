import type { LeaderAddress } from '../../src/contracts/leadership.ts';
import { MillraceError } from '../../src/kernel/errors.ts';
import { RETRY_JITTER_MAX } from './lease-keeper.ts';
import { checkReplicaId } from '../stores/cluster-keys.ts';

export type ReplicaAddress = Omit<LeaderAddress, 'electedWallMs'>;

export interface ElectionOptions {
  readonly address: ReplicaAddress;
  /** `high-availability.lease-ttl`. */
  readonly leaseTtlMs: number;
  /** `high-availability.lease-margin`: the leader suspends itself this long before its lease could expire. */
  readonly leaseMarginMs: number;
  /** Between two keepalives. Default: a third of the TTL. */
  readonly renewIntervalMs?: number;
  /** Wait after a failed try of anything. Default: a quarter of the renewal interval. */
  readonly retryMs?: number;
  /** How long a replica that gave up stands back, so that others come first. Default: the TTL. */
  readonly abdicationDelayMs?: number;
  /**
   * On `close`, after `revoked`: resolves once the contender has made its last write. The lease is
   * kept until then (but not longer than `lastWritesMaxMs`, default 5 s) and then revoked: a
   * standby takes over without waiting for the TTL.
   */
  readonly lastWrites?: () => Promise<void>;
  readonly lastWritesMaxMs?: number;
}

export type ElectionTimes = Required<
  Pick<
    ElectionOptions,
    'leaseTtlMs' | 'leaseMarginMs' | 'renewIntervalMs' | 'retryMs' | 'abdicationDelayMs' | 'lastWritesMaxMs'
  >
>;

/** @throws `CONFIGURATION` listing every relation that does not hold. */
export function electionTimes(options: ElectionOptions): ElectionTimes {
  const renewIntervalMs = options.renewIntervalMs ?? options.leaseTtlMs / 3;
  const times: ElectionTimes = {
    leaseTtlMs: options.leaseTtlMs,
    leaseMarginMs: options.leaseMarginMs,
    renewIntervalMs,
    retryMs: options.retryMs ?? renewIntervalMs / 4,
    abdicationDelayMs: options.abdicationDelayMs ?? options.leaseTtlMs,
    lastWritesMaxMs: options.lastWritesMaxMs ?? 5_000,
  };
  const problems: string[] = [];
  for (const [name, value] of Object.entries(times))
    if (!Number.isFinite(value) || value <= 0) problems.push(`${name} (${value}) must be positive`);
  const usableMs = times.leaseTtlMs - times.leaseMarginMs;
  if (usableMs <= 0)
    problems.push(`lease margin (${times.leaseMarginMs} ms) must be less than the lease TTL (${times.leaseTtlMs} ms)`);
  else if (2 * renewIntervalMs > usableMs)
    problems.push(
      `two renewals (2 x ${renewIntervalMs} ms) must fit in the lease TTL less its margin (${usableMs} ms): one lost keepalive would suspend the leader`,
    );
  if (times.retryMs * RETRY_JITTER_MAX > renewIntervalMs)
    problems.push(`retries (${times.retryMs} ms, with jitter) must be shorter than renewals (${renewIntervalMs} ms)`);
  if (problems.length > 0) throw new MillraceError('CONFIGURATION', `election: ${problems.join('; ')}`);
  checkReplicaId(options.address.replicaId);
  return times;
}
