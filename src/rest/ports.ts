import type { DispatcherGateway } from '../contracts/dispatcher-gateway.ts';
import type { LeaderInfo } from '../contracts/leadership.ts';
import type { Logger } from '../kernel/log.ts';

/** What REST needs of the process that it runs in. */
export interface RestDeps {
  readonly log: Logger;
  readonly dispatcher: DispatcherGateway;
  readonly ha: HaView;
  /** Effective settings, secrets hidden. */
  readonly configuration: readonly { readonly key: string; readonly value: string }[];
  readonly version: string;
}

/** Who leads and who could, as this replica knows it. Answered by every replica for itself, never forwarded. */
export interface HaView {
  /** This replica's name. */
  readonly replicaId: string;
  /** The REST address under which others forward to this replica. */
  readonly restUrl: () => string;
  /** True while this replica leads and its lease is certainly alive. */
  isLeading(): boolean;
  leader(): LeaderInfo | undefined;
  /** All live masters, the leader among them. */
  replicas(): Promise<readonly ReplicaView[]>;
  /** Newest last, bounded. */
  events(): readonly HaEvent[];
  /**
   * Gives leadership up so that another master (`to`, if given) takes it at once; resolves when it is free.
   * Rejects with `CONFLICT` unless this replica is `leader`, leads under `token`, and somebody can follow.
   */
  handOver(request: HandOverRequest): Promise<void>;
}

export interface HandOverRequest {
  readonly leader: string;
  readonly token: string;
  readonly to?: string | undefined;
}

export interface ReplicaView {
  readonly id: string;
  readonly restUrl: string;
  readonly rpcAddress: string;
  readonly startedMs: number;
}

/** A change of leadership that this replica saw. */
export interface HaEvent {
  readonly timestampMs: number;
  readonly kind:
    | 'leader-elected'
    | 'leader-lost'
    | 'granted'
    | 'suspended'
    | 'resumed'
    | 'revoked'
    | 'not-adopted'
    | 'hand-over'
    | 'fast-takeover-off'
    | 'fast-takeover-on';
  readonly replicaId: string | undefined;
  readonly token: string | undefined;
  readonly detail: string;
}

export interface RestOptions {
  readonly host: string;
  readonly port: number;
  readonly maxContentBytes: number;
  /** Folder of the built dashboard; undefined: no dashboard is served. */
  readonly webRoot: string | undefined;
}
