import type { ReplicaAddress } from './election-options.ts';
import { LeasedKey, type LeasedKeyDeps } from './leased-key.ts';
import { encodeReplica } from './replica-directory.ts';

export type ReplicaRegistrationDeps = LeasedKeyDeps;

export interface ReplicaRegistrationOptions {
  readonly address: ReplicaAddress;
  /** How long a replica that died silently is still listed (default 5,000). */
  readonly ttlMs?: number;
}

/** Keeps `replicas/<id>` while this process lives, for people to see who stands by. */
export const ReplicaRegistration = {
  start(deps: ReplicaRegistrationDeps, { address, ttlMs = 5_000 }: ReplicaRegistrationOptions): LeasedKey {
    const key = deps.keys.replica(address.replicaId, address.incarnation);
    const value = encodeReplica({ ...address, startedWallMs: deps.clock.wallMs() });
    return LeasedKey.start(deps, { key, value, ttlMs });
  },
};
