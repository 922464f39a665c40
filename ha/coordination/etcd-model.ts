import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { Entry, LeaseId, Listing, Revision, Transaction } from './coordination.ts';
import { type ModelClientOptions, ModelCoordination } from './model-coordination.ts';
import {
  applyTransaction,
  type ChangeSet,
  dropLease,
  expireLeases,
  grantLease,
  type LeaseRecord,
  renewLease,
  type Tables,
} from './revision-engine.ts';

export type ModelCallKind =
  | 'get'
  | 'list'
  | 'txn'
  | 'grantLease'
  | 'keepAlive'
  | 'revokeLease'
  /** A watch connects, or connects again. */
  | 'watch'
  /** Changes are on their way to a watch. */
  | 'watchEvents';

/** What an interceptor is told of a call. */
export interface ModelCall {
  readonly client: string;
  readonly kind: ModelCallKind;
  /** The key, prefix or lease; empty for transactions. */
  readonly subject: string;
  readonly transaction?: Transaction;
}

/**
 * What goes wrong with one call:
 * - `delay`: the request arrives after `requestMs`, the answer `answerMs` later. A caller whose
 *   deadline passes first gives up, and the request still takes effect.
 * - `failBefore`: it never arrives and the caller knows (`UNAVAILABLE`). Breaks a watch.
 * - `failAfter`: it takes effect and the answer is lost (`UNKNOWN_OUTCOME` for mutations).
 * - `hang`: it never arrives and the caller learns nothing until its deadline.
 */
export type ModelFault =
  | { readonly kind: 'delay'; readonly requestMs: number; readonly answerMs: number }
  | { readonly kind: 'failBefore' }
  | { readonly kind: 'failAfter' }
  | { readonly kind: 'hang' };

export type ModelInterceptor = (call: ModelCall) => ModelFault | undefined;

export interface EtcdModelOptions {
  readonly clock: Clock;
  /** Shorter TTLs are granted as this, as etcd does (default 0: granted as asked). */
  readonly minTtlMs?: number;
  /** Leases live this much longer than they must, as etcd's do (default 0). */
  readonly expiryLagMs?: number;
  /** How many revisions are kept for watches; older ones are compacted (default 10,000). */
  readonly historyMax?: number;
}

/**
 * etcd in memory, for the cluster in one process and for the simulator. It keeps time by its clock,
 * uses no randomness, and all clients that {@link client} makes see one store.
 */
export class EtcdModel {
  readonly clock: Clock;
  /** Asked before every call of every client; set it to inject faults. */
  intercept: ModelInterceptor | undefined;
  private readonly tables = new MemoryTables();
  private readonly watchers = new Set<() => void>();
  private readonly minTtlMs: number;
  private readonly expiryLagMs: number;
  private expiry: { readonly timer: Timer; readonly atMs: number } | undefined;
  private leaderless = false;
  private clients = 0;

  constructor(options: EtcdModelOptions) {
    this.clock = options.clock;
    this.minTtlMs = options.minTtlMs ?? 0;
    this.expiryLagMs = options.expiryLagMs ?? 0;
    this.tables.historyMax = options.historyMax ?? 10_000;
  }

  client(options: ModelClientOptions = {}): ModelCoordination {
    this.clients++;
    return new ModelCoordination(this, { name: `client-${this.clients}`, ...options });
  }

  get revision(): Revision {
    this.expire();
    return this.tables.revision();
  }

  /** The leases that live, for tests and checkers that look for leaks. */
  get leases(): readonly LeaseRecord[] {
    this.expire();
    return this.tables.leases();
  }

  /** Forgets changes up to and including `revision`, as `etcdctl compact` does. */
  compact(revision: Revision = this.revision): void {
    this.tables.compact(revision);
  }

  /** Without a leader of its own etcd keeps no time: no lease expires until {@link electLeader}. */
  loseLeader(): void {
    this.leaderless = true;
    this.disarmExpiry();
  }

  /** A new leader of etcd's own knows no deadlines: every lease that lives has its whole TTL again. */
  electLeader(): void {
    if (!this.leaderless) this.expire();
    this.leaderless = false;
    const nowMs = this.clock.nowMs();
    for (const { id } of this.tables.leases()) renewLease(this.tables, id, nowMs);
    this.armExpiry();
  }

  get(key: string): Entry | undefined {
    this.expire();
    return this.tables.entry(key);
  }

  list(prefix: string): Listing {
    this.expire();
    return { entries: this.tables.entriesUnder(prefix), revision: this.tables.revision() };
  }

  txn(transaction: Transaction) {
    return this.change(() => applyTransaction(this.tables, transaction));
  }

  grantLease(ttlMs: number) {
    return this.change((nowMs) => grantLease(this.tables, Math.max(ttlMs, this.minTtlMs), nowMs));
  }

  keepAlive(lease: LeaseId) {
    return this.change((nowMs) => renewLease(this.tables, lease, nowMs));
  }

  revokeLease(lease: LeaseId): void {
    this.change(() => dropLease(this.tables, lease));
  }

  /** All changes after `revision`, or undefined when some of them were compacted away. */
  changesAfter(revision: Revision): readonly ChangeSet[] | undefined {
    this.expire();
    return this.tables.changesAfter(revision);
  }

  /** `onChange` is called after every commit. Returns the function that ends it. */
  subscribe(onChange: () => void): () => void {
    this.watchers.add(onChange);
    this.armExpiry();
    return () => {
      this.watchers.delete(onChange);
      if (this.watchers.size === 0) this.disarmExpiry();
    };
  }

  private change<T>(step: (nowMs: number) => T): T {
    const before = this.tables.revision();
    this.dropExpired();
    try {
      return step(this.clock.nowMs());
    } finally {
      this.armExpiry();
      if (this.tables.revision() !== before) this.notify();
    }
  }

  private expire(): void {
    if (this.dropExpired() === 0) return;
    this.armExpiry();
    this.notify();
  }

  private dropExpired(): number {
    return this.leaderless ? 0 : expireLeases(this.tables, this.clock.nowMs(), this.expiryLagMs);
  }

  private notify(): void {
    for (const onChange of [...this.watchers]) onChange();
  }

  /**
   * A timer is needed only while somebody watches: everybody else expires leases before looking. One that
   * is set for earlier stays: leases are renewed all the time, and it looks again when it fires.
   */
  private armExpiry(): void {
    if (this.watchers.size === 0 || this.leaderless) return;
    let dueMs = Number.POSITIVE_INFINITY;
    for (const { deadlineMs } of this.tables.leases()) dueMs = Math.min(dueMs, deadlineMs + this.expiryLagMs);
    if (dueMs === Number.POSITIVE_INFINITY || (this.expiry !== undefined && this.expiry.atMs <= dueMs)) return;
    this.disarmExpiry();
    const timer = this.clock.schedule(Math.max(0, dueMs - this.clock.nowMs()), () => {
      this.expiry = undefined;
      this.expire();
      this.armExpiry();
    });
    this.expiry = { timer, atMs: dueMs };
  }

  private disarmExpiry(): void {
    this.expiry?.timer.cancel();
    this.expiry = undefined;
  }
}

class MemoryTables implements Tables {
  historyMax = 10_000;
  private readonly entries = new Map<string, Entry>();
  private readonly leaseRecords = new Map<LeaseId, LeaseRecord>();
  /** `history[0]` is the change set of `compacted + 1`: revisions are dense (E1). */
  private history: ChangeSet[] = [];
  /** An empty etcd is at revision 1. */
  private current = 1n;
  private compacted = 1n;
  private leaseSequence = 0;

  revision(): Revision {
    return this.current;
  }

  entry(key: string): Entry | undefined {
    return this.entries.get(key);
  }

  entriesUnder(prefix: string): readonly Entry[] {
    const found = [...this.entries.values()].filter((entry) => entry.key.startsWith(prefix));
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  putEntry(entry: Entry): void {
    this.entries.set(entry.key, entry);
  }

  removeEntry(key: string): void {
    this.entries.delete(key);
  }

  lease(id: LeaseId): LeaseRecord | undefined {
    return this.leaseRecords.get(id);
  }

  leases(): readonly LeaseRecord[] {
    return [...this.leaseRecords.values()];
  }

  putLease(record: LeaseRecord): void {
    this.leaseRecords.set(record.id, record);
  }

  removeLease(id: LeaseId): void {
    this.leaseRecords.delete(id);
  }

  newLeaseId(): LeaseId {
    this.leaseSequence++;
    return String(this.leaseSequence);
  }

  commit(set: ChangeSet): void {
    this.current = set.revision;
    this.history.push(set);
    // Twice the bound before trimming, so that a commit costs constant time on average.
    if (this.history.length >= 2 * this.historyMax) this.compact(this.current - BigInt(this.historyMax));
  }

  compact(revision: Revision): void {
    if (revision <= this.compacted || revision > this.current) return;
    this.history = this.history.slice(Number(revision - this.compacted));
    this.compacted = revision;
  }

  changesAfter(after: Revision): readonly ChangeSet[] | undefined {
    const revision = after < 1n ? 1n : after;
    // A watcher ahead of the store knew another one: it must start over.
    if (revision < this.compacted || revision > this.current) return undefined;
    return this.history.slice(Number(revision - this.compacted));
  }
}
