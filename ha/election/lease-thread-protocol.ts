import type { CoordinationOptions } from '../coordination/create-coordination.ts';
import type { LeaseId } from '../coordination/coordination.ts';
import type { KeeperTimes } from './lease-keeper.ts';

/** Plain data that the thread starts from. */
export interface LeaseThreadData {
  readonly coordination: CoordinationOptions;
  readonly times: KeeperTimes;
  /** Without a sign of the main thread for so long, no lease is renewed. */
  readonly patienceMs: number;
  /** One 64-bit cell: when the main thread's event loop last turned, in microseconds of {@link monotonicUs}. */
  readonly pat: SharedArrayBuffer;
}

export type ToLeaseThread =
  | {
      readonly kind: 'keep';
      readonly id: number;
      readonly lease: LeaseId;
      /** One 64-bit cell: until when the lease lives, for a main thread that has no time for messages. */
      readonly alive: SharedArrayBuffer;
    }
  | { readonly kind: 'renew' | 'release'; readonly id: number }
  | { readonly kind: 'close' };

export type FromLeaseThread =
  | { readonly kind: 'ready' }
  | { readonly kind: 'renewed'; readonly id: number; readonly aliveUntilUs: bigint }
  | { readonly kind: 'gone'; readonly id: number };

/** CLOCK_MONOTONIC: the one clock that all threads read alike. */
export function monotonicUs(): bigint {
  return process.hrtime.bigint() / 1_000n;
}
