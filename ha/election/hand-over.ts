import { asError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination, LeaseId } from '../coordination/coordination.ts';
import type { ClusterKeys } from '../stores/cluster-keys.ts';
import { decodeRecord, encodeRecord, type RecordType } from '../stores/record-codec.ts';
import { z } from 'zod';
import type { Entry } from '../coordination/coordination.ts';

/** A hand-over to a certain replica: the others let it come first. Goes with the lease of the leader that wrote it. */
export interface NextLeader {
  readonly replicaId: string;
  readonly from: string;
}

export const NEXT_LEADER_RECORD: RecordType<NextLeader> = {
  name: 'next leader',
  version: 1,
  schema: z.object({ replicaId: z.string().min(1).max(200), from: z.string().max(40) }),
};

/** How long the others wait for the replica that a hand-over names. */
export const NAMED_FIRST_MS = 500;

export interface HandOverDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly log: Logger;
}

/**
 * Frees the leader key, and says in the same transaction for whom. False: it is not known to be free, but
 * goes with the lease, and whoever comes first takes over.
 */
export async function freeKeyFor(
  deps: HandOverDeps,
  to: string,
  held: { readonly token: FencingToken; readonly lease: LeaseId },
): Promise<boolean> {
  const { keys, coordination, log } = deps;
  const value = encodeRecord(NEXT_LEADER_RECORD, { replicaId: to, from: String(held.token) });
  try {
    const { succeeded } = await coordination.txn({
      guards: [{ key: keys.leader, modRevision: held.token }],
      then: [
        { kind: 'delete', key: keys.leader },
        { kind: 'put', key: keys.nextLeader, value, lease: held.lease },
      ],
    });
    return succeeded;
  } catch (error) {
    log.warn({ err: asError(error), to }, 'handing over to whoever comes first');
    return false;
  }
}

/** Whether a hand-over that is under way means another replica. */
export function meansAnother(entry: Entry | undefined, replicaId: string, log: Logger): boolean {
  if (entry === undefined) return false;
  try {
    return decodeRecord(NEXT_LEADER_RECORD, entry).replicaId !== replicaId;
  } catch (error) {
    log.warn({ err: asError(error) }, 'the record of a hand-over is unreadable');
    return false;
  }
}
