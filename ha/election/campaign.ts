import { type Clock, sleep } from '../../src/kernel/clock.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Coordination, LeaseId } from '../coordination/coordination.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import type { ElectionTimes, ReplicaAddress } from './election-options.ts';
import { encodeLeader } from './leader-record.ts';

export interface CampaignDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Why now: nobody leads, or the leader of that token is gone and its key is there for the taking. */
export type Chance = { readonly kind: 'free' } | { readonly kind: 'steal'; readonly from: FencingToken };

/**
 * One try to become leader: `If modRevision(leader) == 0 Then Put(leader, me, lease)`, or `== R` to steal
 * the key of a leader that is gone. Undefined when somebody else has won. A lost answer is asked again:
 * the value carries a nonce of this try, so the key itself says whether it was won. Until `deadlineMs`,
 * and then it rejects: whoever calls must revoke the lease, with which the key goes if it was written.
 */
export async function campaign(
  deps: CampaignDeps,
  times: ElectionTimes,
  address: ReplicaAddress,
  chance: Chance,
  lease: { readonly id: LeaseId; readonly deadlineMs: number },
  signal: AbortSignal,
): Promise<FencingToken | undefined> {
  const key = deps.keys.leader;
  const value = encodeLeader({
    ...address,
    electedWallMs: deps.clock.wallMs(),
    campaign: deps.random.hex(8),
    ...(chance.kind === 'steal' ? { stolenFrom: String(chance.from) } : {}),
  });
  let lost: unknown;
  for (;;) {
    try {
      const result = await deps.coordination.txn({
        guards: [{ key, modRevision: chance.kind === 'free' ? 0n : chance.from }],
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
      if (signal.aborted || deps.clock.nowMs() + times.retryMs >= lease.deadlineMs) throw lost;
      deps.log.warn({ err: asError(error) }, 'the answer to the campaign was lost, asking again');
      await sleep(deps.clock, times.retryMs, signal);
    }
  }
}
