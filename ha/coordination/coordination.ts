import type { Closeable } from '../../src/kernel/lifecycle.ts';

/**
 * What millrace needs of a consensus store: revisions, compare-and-set transactions, leases, watches.
 *
 * Guarantees every adapter gives, and the contract suite checks:
 *   C1. `get`, `list` and `txn` are linearizable.
 *   C2. Every committed transaction with a write has its own revision; revisions strictly increase,
 *       and all writes of one transaction carry the same `modRevision`.
 *   C3. A key bound to a lease disappears when the lease expires or is revoked, as a deletion that
 *       has its own revision and is watched like any other. A lease lives at least its granted TTL
 *       after the last answered grant or keepalive (measured from when that call was *sent*).
 *   C4. A watch delivers every change of its range after `afterRevision`, once, in order of revision,
 *       or says 'reset' with a full listing when changes were compacted away. A gap is never silent.
 *   C5. A lost answer is an `UNKNOWN_OUTCOME` error for `txn` and `revokeLease` (it may have happened);
 *       `UNAVAILABLE` means that nothing happened. No adapter retries a transaction whose outcome is
 *       unknown. The other calls are `UNAVAILABLE` in both cases: a renewal or a grant whose answer was
 *       lost may have been made, but only makes a lease live longer that nobody counts on.
 *   C6. Every call ends within the adapter's deadline (default 1 s), also when nobody answers.
 */
export interface Coordination extends Closeable {
  /** For logs; no credentials. */
  readonly description: string;
  get(key: string): Promise<Entry | undefined>;
  list(prefix: string): Promise<Listing>;
  /**
   * Rejects, with nothing changed, with `INVALID_ARGUMENT` when it breaks a limit or puts a key that
   * it also puts or deletes elsewhere in the same branch, and with `NOT_FOUND` when it binds a key
   * to a lease that has expired.
   */
  txn(transaction: Transaction): Promise<TxnResult>;
  grantLease(ttlMs: number): Promise<Lease>;
  /** Resolves with the new TTL; rejects with `NOT_FOUND` when the lease has expired or was revoked. */
  keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }>;
  /** Idempotent. Keys bound to the lease are deleted. */
  revokeLease(lease: LeaseId): Promise<void>;
  /**
   * Watches all keys that start with `prefix`, from `afterRevision` (exclusive; from a listing).
   * Outages are bridged inside; `close` ends it. The listener must not throw. A revision that the
   * store has compacted away, or never had (it was restored or made anew), gives a 'reset'.
   */
  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch;
}

export type Revision = bigint;
export type LeaseId = string;

/**
 * Keys are `/`-separated paths of `[A-Za-z0-9._/-]`, at most 512 characters; values are UTF-8 text of
 * at most 64 KiB (`MAX_VALUE_BYTES`). A transaction holds at most 1 MiB (`MAX_TXN_BYTES`).
 */
export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly modRevision: Revision;
  readonly createRevision: Revision;
  readonly lease: LeaseId | undefined;
}

export interface Listing {
  readonly entries: readonly Entry[];
  /** The store's revision at which the listing is true; watch from here to miss nothing. */
  readonly revision: Revision;
}

export interface Lease {
  readonly id: LeaseId;
  /** What the store granted, which may be longer than what was asked. */
  readonly grantedTtlMs: number;
}

/** `modRevision: 0n` means "the key does not exist". */
export interface Guard {
  readonly key: string;
  readonly modRevision: Revision;
}

export type Op =
  | { readonly kind: 'put'; readonly key: string; readonly value: string; readonly lease?: LeaseId }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'deletePrefix'; readonly prefix: string }
  | { readonly kind: 'get'; readonly key: string };

export interface Transaction {
  /** All must hold. */
  readonly guards: readonly Guard[];
  readonly then: readonly Op[];
  /** Usually reads, to learn which guard failed. */
  readonly otherwise?: readonly Op[];
}

export interface TxnResult {
  readonly succeeded: boolean;
  /** The store's revision after the transaction; the `modRevision` of what it wrote, if it wrote. */
  readonly revision: Revision;
  /** The entries read by the `get` operations of the branch that ran, in their order. */
  readonly reads: readonly (Entry | undefined)[];
}

export type WatchEvent =
  | { readonly kind: 'put'; readonly entry: Entry; readonly revision: Revision }
  | { readonly kind: 'delete'; readonly key: string; readonly revision: Revision }
  /** Changes were compacted away: this listing replaces all that the watcher knew. */
  | { readonly kind: 'reset'; readonly listing: Listing }
  /** The stream broke and is being re-established; nothing is lost, but news may be late. */
  | { readonly kind: 'disconnected'; readonly reason: string };

export interface Watch {
  close(): Promise<void>;
}

/** etcd's default limits, kept by every adapter so that a job that fits one fits all. */
export const MAX_TXN_OPS = 128;
export const MAX_VALUE_BYTES = 64 * 1024;
