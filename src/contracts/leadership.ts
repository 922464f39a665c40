import { z } from 'zod';
import type { FencingToken } from '../kernel/ids.ts';

/** What a leader publishes about itself, in the value of the leader key. It never changes while it leads. */
export const leaderAddressSchema = z.object({
  /** The replica's name, unique in the cluster, e.g. `jobmanager-0`. */
  replicaId: z.string().min(1).max(200),
  /** Changes with every process start, so that a stranger on the same port is recognised. */
  incarnation: z.string().min(8).max(64),
  /** `host:port` of the control RPC. */
  rpcAddress: z.string().min(3).max(300),
  /** `http(s)://host:port` of REST. */
  restUrl: z.string().min(8).max(300),
  /** When this replica began to campaign for this term, epoch ms, for people only. */
  electedWallMs: z.number(),
});

export type LeaderAddress = z.infer<typeof leaderAddressSchema>;

export interface LeaderInfo extends LeaderAddress {
  readonly token: FencingToken;
}

/**
 * This replica's part in the election.
 *
 * `granted` is called at most once per token, tokens strictly increase, and `revoked` for the same
 * token comes before the next `granted`. Between `suspended` and `resumed` the replica must take no
 * decision and send no command, and forget nothing (rule 3 of the protocol).
 */
export interface LeaderContender {
  granted(leadership: Leadership): void;
  suspended(token: FencingToken, reason: string): void;
  resumed(token: FencingToken): void;
  revoked(token: FencingToken, reason: string): void;
}

/** A term of leadership. */
export interface Leadership {
  readonly token: FencingToken;
  /** False once the deadline has passed on the monotonic clock, even before anybody was told. */
  isValid(): boolean;
  /** Gives up leadership because a store refused the token or the replica cannot lead; idempotent. */
  abdicate(reason: string): void;
}

/** Who leads, for those who do not: workers, standbys, clients with access to the coordination store. */
export interface LeaderRetrieval {
  /** The newest leader known, or undefined while there is none. Never goes back to an older token. */
  current(): LeaderInfo | undefined;
  /** Called with each change, at once with the present one. Returns the unsubscriber. */
  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void;
  /**
   * False while the coordination store cannot be reached, so that `current()` may be out of date. A
   * worker ends its tasks only for a leader that the store *says* exists: an outage of the store must
   * not cost a restart. Absent: always true.
   */
  connected?(): boolean;
}

/**
 * One fresh connect to where a leader said that it listens, and the question who is there.
 * `same`: the leader's own process answered, and the connection is kept open until `close`.
 */
export type ProbeAnswer =
  | { readonly kind: 'same'; close(): void }
  /** The leader's machine answers, and nobody listens there: the process is gone. */
  | { readonly kind: 'refused' }
  /** Somebody else listens there: another incarnation, or what speaks no protocol of ours. */
  | { readonly kind: 'stranger' }
  /** Silence, an unreachable host, a connection that broke: proves nothing. */
  | { readonly kind: 'unclear'; readonly reason: string };

/** How a standby looks at the leader's process. */
export interface LeaderProbe {
  /**
   * Resolves within a deadline of its own and never rejects. `lost` is called at most once, after `same`
   * and unless it was closed before, when the kept connection is reset or closed.
   */
  connect(leader: LeaderAddress, lost: () => void): Promise<ProbeAnswer>;
}
