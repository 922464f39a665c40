import { NotFoundError } from '../../src/kernel/errors.ts';
import type { Entry, Lease, LeaseId, Op, Revision, Transaction, TxnResult } from './coordination.ts';

/**
 * etcd's rules of revisions, transactions and leases, as pure steps over tables that somebody else
 * keeps: Maps in the model, LMDB in the embedded adapter. So both obey the same rules by construction.
 *
 * Invariants:
 *   E1. Revisions are dense: each committed change set is the previous revision plus one.
 *   E2. A step checks everything that may fail before its first write, so a thrown error leaves
 *       the tables as they were.
 *   E3. A key is listed in the record of the lease it is bound to, and in no other.
 */
export interface Tables {
  revision(): Revision;
  entry(key: string): Entry | undefined;
  /** In key order. */
  entriesUnder(prefix: string): readonly Entry[];
  putEntry(entry: Entry): void;
  removeEntry(key: string): void;
  lease(id: LeaseId): LeaseRecord | undefined;
  leases(): readonly LeaseRecord[];
  putLease(record: LeaseRecord): void;
  removeLease(id: LeaseId): void;
  /** Never repeats. */
  newLeaseId(): LeaseId;
  /** Makes `set.revision` current and keeps the set for watchers. */
  commit(set: ChangeSet): void;
}

export interface LeaseRecord {
  readonly id: LeaseId;
  readonly ttlMs: number;
  /** On the clock of the tables' owner. */
  readonly deadlineMs: number;
  readonly keys: readonly string[];
}

export type Change =
  | { readonly kind: 'put'; readonly entry: Entry }
  | { readonly kind: 'delete'; readonly key: string };

export interface ChangeSet {
  readonly revision: Revision;
  readonly changes: readonly Change[];
}

/** `transaction` has passed `checkTransaction`. Leases that have expired by now are already gone. */
export function applyTransaction(tables: Tables, transaction: Transaction): TxnResult {
  const succeeded = transaction.guards.every(
    (guard) => (tables.entry(guard.key)?.modRevision ?? 0n) === guard.modRevision,
  );
  const ops = succeeded ? transaction.then : (transaction.otherwise ?? []);
  for (const op of ops) requireLease(tables, op);
  const revision = tables.revision() + 1n;
  const reads: (Entry | undefined)[] = [];
  const changes: Change[] = [];
  for (const op of ops) {
    switch (op.kind) {
      case 'get':
        reads.push(tables.entry(op.key));
        break;
      case 'put':
        changes.push(put(tables, op, revision));
        break;
      case 'delete':
        changes.push(...remove(tables, op.key));
        break;
      case 'deletePrefix':
        for (const entry of tables.entriesUnder(op.prefix)) changes.push(...remove(tables, entry.key));
        break;
    }
  }
  if (changes.length === 0) return { succeeded, revision: revision - 1n, reads };
  tables.commit({ revision, changes });
  return { succeeded, revision, reads };
}

export function grantLease(tables: Tables, ttlMs: number, nowMs: number): Lease {
  const id = tables.newLeaseId();
  tables.putLease({ id, ttlMs, deadlineMs: nowMs + ttlMs, keys: [] });
  return { id, grantedTtlMs: ttlMs };
}

export function renewLease(tables: Tables, id: LeaseId, nowMs: number): { readonly ttlMs: number } {
  const record = tables.lease(id);
  if (record === undefined) throw new NotFoundError(`lease ${id} has expired or was revoked`);
  tables.putLease({ ...record, deadlineMs: nowMs + record.ttlMs });
  return { ttlMs: record.ttlMs };
}

/** Deletes the lease and its keys in one revision of their own. Does nothing when there is no such lease. */
export function dropLease(tables: Tables, id: LeaseId): void {
  const record = tables.lease(id);
  if (record === undefined) return;
  tables.removeLease(id);
  const changes: Change[] = [];
  for (const key of [...record.keys].sort()) {
    tables.removeEntry(key);
    changes.push({ kind: 'delete', key });
  }
  if (changes.length > 0) tables.commit({ revision: tables.revision() + 1n, changes });
}

/**
 * A deadline further away than the TTL cannot have been written on this run of the clock: the
 * machine was restarted, and with it everyone who could have held the lease.
 */
export function leaseExpired(record: LeaseRecord, nowMs: number, lagMs = 0): boolean {
  return record.deadlineMs + lagMs <= nowMs || record.deadlineMs - nowMs > record.ttlMs + 1;
}

/** Drops every lease that has expired `lagMs` ago, the longest expired first. Returns how many. */
export function expireLeases(tables: Tables, nowMs: number, lagMs = 0): number {
  const expired = tables.leases().filter((record) => leaseExpired(record, nowMs, lagMs));
  expired.sort((a, b) => a.deadlineMs - b.deadlineMs || (a.id < b.id ? -1 : 1));
  for (const record of expired) dropLease(tables, record.id);
  return expired.length;
}

function requireLease(tables: Tables, op: Op): void {
  if (op.kind === 'put' && op.lease !== undefined && tables.lease(op.lease) === undefined)
    throw new NotFoundError(`${op.key} was not written: lease ${op.lease} has expired or was revoked`);
}

function put(tables: Tables, op: Op & { kind: 'put' }, revision: Revision): Change {
  const before = tables.entry(op.key);
  if (before?.lease !== op.lease) {
    unbind(tables, before);
    bind(tables, op.lease, op.key);
  }
  const entry: Entry = {
    key: op.key,
    value: op.value,
    modRevision: revision,
    createRevision: before?.createRevision ?? revision,
    lease: op.lease,
  };
  tables.putEntry(entry);
  return { kind: 'put', entry };
}

function remove(tables: Tables, key: string): Change[] {
  const before = tables.entry(key);
  if (before === undefined) return [];
  unbind(tables, before);
  tables.removeEntry(key);
  return [{ kind: 'delete', key }];
}

function bind(tables: Tables, lease: LeaseId | undefined, key: string): void {
  if (lease === undefined) return;
  const record = tables.lease(lease);
  if (record !== undefined) tables.putLease({ ...record, keys: [...record.keys, key] });
}

function unbind(tables: Tables, entry: Entry | undefined): void {
  if (entry?.lease === undefined) return;
  const record = tables.lease(entry.lease);
  if (record !== undefined) tables.putLease({ ...record, keys: record.keys.filter((key) => key !== entry.key) });
}
