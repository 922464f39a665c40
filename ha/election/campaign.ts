import { type Clock, sleep } from '../../src/kernel/clock.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination, Lease, LeaseId } from '../coordination/coordination.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import type { ElectionTimes, ReplicaAddress } from './election-options.ts';
import { encodeLeader } from './leader-record.ts';
import { revokeLease } from './revoke-lease.ts';

export interface CampaignDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface WonCampaign {
  readonly token: FencingToken;
  readonly lease: LeaseId;
  /** Until then, on the monotonic clock, nobody else can have been elected. */
  readonly deadlineMs: number;
}

/**
 * One try to become leader: a new lease, then `If modRevision(leader) == 0 Then Put(leader, me, lease)`.
 * Undefined when somebody else leads. A lost answer is asked again: the value carries a nonce of this
 * try, so the key itself says whether it was won.
 */
export async function campaign(
  deps: CampaignDeps,
  times: ElectionTimes,
  address: ReplicaAddress,
  signal: AbortSignal,
): Promise<WonCampaign | undefined> {
  const sentMs = deps.clock.nowMs();
  const lease = await deps.coordination.grantLease(times.leaseTtlMs);
  // Counted from when the grant was sent: the store cannot have begun to count earlier.
  const deadlineMs = sentMs + lease.grantedTtlMs - times.leaseMarginMs;
  let won: FencingToken | undefined;
  try {
    won = await tryToWin(deps, times, address, lease, deadlineMs, signal);
  } finally {
    // Also when it is unknown whether the key was written: without its lease it does not stay.
    if (won === undefined) await revokeLease(deps, lease.id, times.retryMs);
  }
  return won === undefined ? undefined : { token: won, lease: lease.id, deadlineMs };
}

async function tryToWin(
  deps: CampaignDeps,
  times: ElectionTimes,
  address: ReplicaAddress,
  lease: Lease,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<FencingToken | undefined> {
  const key = deps.keys.leader;
  const value = encodeLeader({ ...address, electedWallMs: deps.clock.wallMs(), campaign: deps.random.hex(8) });
  let lost: unknown;
  for (;;) {
    try {
      const result = await deps.coordination.txn({
        guards: [{ key, modRevision: 0n }],
        then: [{ kind: 'put', key, value, lease: lease.id }],
        otherwise: [{ kind: 'get', key }],
      });
      if (result.succeeded) return asFencingToken(result.revision);
      const holder = result.reads[0];
      return holder?.value === value ? asFencingToken(holder.modRevision) : undefined;
    } catch (error) {
      if (isMillraceError(error, 'UNKNOWN_OUTCOME')) lost ??= error;
      // The lease is gone already: too slow, or it was an answer that was lost after all.
      else if (lost === undefined || isMillraceError(error, 'NOT_FOUND')) throw error;
      if (signal.aborted || deps.clock.nowMs() + times.retryMs >= deadlineMs) throw lost;
      deps.log.warn({ err: asError(error) }, 'the answer to the campaign was lost, asking again');
      await sleep(deps.clock, times.retryMs, signal);
    }
  }
}
