import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { type Clock, every, type Timer } from '../../src/kernel/clock.ts';
import { asError, InvalidArgumentError, MillraceError, UnavailableError } from '../../src/kernel/errors.ts';
import { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import { readBootId, systemMonotonicMs } from './boot-time.ts';
import { checkKey, checkPrefix, checkTransaction, checkTtl } from './check-transaction.ts';
import type {
  Coordination,
  Entry,
  Lease,
  LeaseId,
  Listing,
  Revision,
  Transaction,
  TxnResult,
  Watch,
  WatchEvent,
} from './coordination.ts';
import { deliverChanges } from './deliver-changes.ts';
import { LmdbTables } from './lmdb-tables.ts';
import { LmdbWriter } from './lmdb-writer.ts';
import { type CallKind, closedError } from './lost-answer.ts';
import {
  applyTransaction,
  type ChangeSet,
  dropLease,
  expireLeases,
  grantLease,
  leaseExpired,
  renewLease,
} from './revision-engine.ts';
import { WriterLock } from './writer-lock.ts';

export interface LmdbCoordinationDeps {
  /** Paces polling and deadlines. Leases are timed by `monotonicMs`. */
  readonly clock: Clock;
  readonly log: Logger;
  /** A clock that all processes of the machine share. Default: CLOCK_MONOTONIC. */
  readonly monotonicMs?: () => number;
  /** Changes when the machine restarts. Default: the kernel's. */
  readonly bootId?: string;
}

export interface LmdbCoordinationOptions {
  /** Created with mode 0700. Must be a local disk: LMDB's locks do not work over a network. */
  readonly directory: string;
  readonly deadlineMs?: number;
  /** How long `start` waits for the write lock (default 5,000). */
  readonly startDeadlineMs?: number;
  /** How often watchers look for changes (default 20); only while somebody watches. */
  readonly pollMs?: number;
  /** Revisions kept for watchers (default 10,000). */
  readonly historyMax?: number;
}

interface LmdbWatch {
  readonly prefix: string;
  readonly listener: (event: WatchEvent) => void;
  last: Revision;
  phase: 'reading' | 'disconnected' | 'closed';
}

const DEADLINE_MS = 1_000;
/** Change sets handed to a watcher at a time, so that one far behind does not hold up the rest. */
const SETS_PER_POLL = 500;

/**
 * Coordination for the processes of one machine, in one LMDB file.
 *
 * Invariants:
 *   B1. Every change is made inside LMDB's write transaction, which one process holds at a time:
 *       whatever a killed process had not committed did not happen.
 *   B2. Nobody acts on an expired lease: writers expire leases before they look at guards, readers
 *       and watchers expire them before they answer.
 *   B3. A lease expires by its stored deadline on the machine's monotonic clock, never because some
 *       process was slow to look. After a restart of the machine all leases have expired.
 *
 * B4 and B5, of waiting and giving up, are `LmdbWriter`'s. All processes must run in one kernel and
 * see each other (one PID and one network namespace); use etcd across containers.
 */
export class LmdbCoordination implements Coordination {
  readonly description: string;
  private readonly tables: LmdbTables;
  private readonly writer: LmdbWriter;
  private readonly tasks: BackgroundTasks;
  private readonly watches = new Set<LmdbWatch>();
  private readonly deadlineMs: number;
  private readonly pollMs: number;
  private readonly monotonicMs: () => number;
  private polling: Timer | undefined;
  private expiring: Promise<void> | undefined;
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly deps: LmdbCoordinationDeps & { readonly bootId: string },
    options: LmdbCoordinationOptions,
    private readonly db: RootDatabase<string, string>,
    lock: WriterLock,
  ) {
    this.description = describe(options);
    this.tables = new LmdbTables(db, options.historyMax ?? 10_000);
    this.tasks = new BackgroundTasks(deps.log);
    this.deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.pollMs = options.pollMs ?? 20;
    this.monotonicMs = deps.monotonicMs ?? systemMonotonicMs;
    this.writer = new LmdbWriter({
      clock: deps.clock,
      tasks: this.tasks,
      lock,
      description: this.description,
      deadlineMs: this.deadlineMs,
      // A child, because an error in a plain asynchronous transaction of lmdb's commits what was written before it.
      transaction: (work) => db.childTransaction(work),
    });
  }

  /** Opens the file, or makes it. `UNAVAILABLE` when that is not possible within the deadline. */
  static async start(deps: LmdbCoordinationDeps, options: LmdbCoordinationOptions): Promise<LmdbCoordination> {
    checkOptions(options);
    const bootId = deps.bootId ?? (await readBootId());
    const lock = await makeDirectory(deps, options);
    const db = await openDatabase(deps.clock, options, lock);
    const coordination = new LmdbCoordination({ ...deps, bootId }, options, db, lock);
    try {
      // Dead processes leave reader slots behind that would keep old pages from being reused.
      db.readerCheck();
      coordination.tables.revision();
    } catch (error) {
      await coordination.close();
      throw error;
    }
    return coordination;
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    return this.read(() => this.tables.entry(key));
  }

  async list(prefix: string): Promise<Listing> {
    checkPrefix(prefix);
    return this.read(() => this.listing(prefix));
  }

  async txn(transaction: Transaction): Promise<TxnResult> {
    checkTransaction(transaction);
    return this.write('txn', () => applyTransaction(this.tables, transaction));
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    checkTtl(ttlMs);
    return this.write('grantLease', (nowMs) => grantLease(this.tables, ttlMs, nowMs));
  }

  async keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }> {
    return this.write('keepAlive', (nowMs) => renewLease(this.tables, lease, nowMs));
  }

  async revokeLease(lease: LeaseId): Promise<void> {
    await this.write('revokeLease', () => dropLease(this.tables, lease));
  }

  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch {
    checkPrefix(prefix);
    this.requireOpen();
    const watch: LmdbWatch = { prefix, listener, last: afterRevision, phase: 'reading' };
    this.watches.add(watch);
    this.polling ??= every(this.deps.clock, this.pollMs, () => this.poll());
    return {
      close: async () => {
        this.leave(watch);
      },
    };
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async shutDown(): Promise<void> {
    for (const watch of [...this.watches]) this.leave(watch);
    // Bounded: a write that waits for a lock that a stopped process holds must not hold up our own end.
    await this.bounded(this.tasks.drain());
    await this.bounded(this.db.close());
  }

  private leave(watch: LmdbWatch): void {
    watch.phase = 'closed';
    this.watches.delete(watch);
    if (this.watches.size > 0) return;
    this.polling?.cancel();
    this.polling = undefined;
  }

  private async read<T>(look: () => T): Promise<T> {
    this.requireOpen();
    // The snapshot of an earlier read would miss what other processes have committed since (C1).
    this.db.resetReadTxn();
    if (this.someLeaseExpired()) {
      await this.expire();
      this.requireOpen();
      this.db.resetReadTxn();
    }
    return look();
  }

  private listing(prefix: string): Listing {
    return { entries: this.tables.entriesUnder(prefix), revision: this.tables.revision() };
  }

  /** `step` runs inside the write transaction. */
  private async write<T>(kind: CallKind, step: (nowMs: number) => T): Promise<T> {
    this.requireOpen();
    return this.writer.write(kind, () => this.inWriteTransaction(step));
  }

  private inWriteTransaction<T>(step: (nowMs: number) => T): T | MillraceError {
    const nowMs = this.monotonicMs();
    if (this.tables.bootId() === this.deps.bootId) {
      expireLeases(this.tables, nowMs);
    } else {
      for (const lease of this.tables.leases()) dropLease(this.tables, lease.id);
      this.tables.setBootId(this.deps.bootId);
    }
    try {
      return step(nowMs);
    } catch (error) {
      // Returned rather than thrown: expired leases stay expired although this step failed.
      if (error instanceof MillraceError && error.code === 'NOT_FOUND') return error;
      throw error;
    }
  }

  private someLeaseExpired(): boolean {
    if (this.tables.bootId() !== this.deps.bootId) return true;
    const nowMs = this.monotonicMs();
    return this.tables.leases().some((record) => leaseExpired(record, nowMs));
  }

  /** One at a time: everybody who finds the same leases expired waits for the same write. */
  private expire(): Promise<void> {
    this.expiring ??= this.write('get', () => {
      this.db.readerCheck();
    }).finally(() => {
      this.expiring = undefined;
    });
    return this.expiring;
  }

  private poll(): void {
    if (this.closing !== undefined) return;
    for (const watch of [...this.watches]) this.catchUp(watch);
    if (this.expiring === undefined && this.reading(() => this.someLeaseExpired()) === true)
      this.tasks.run('expire leases', () => this.expire());
  }

  private catchUp(watch: LmdbWatch): void {
    const news = this.reading(() => this.news(watch));
    if (watch.phase === 'closed') return;
    if (news instanceof Error) {
      const first = watch.phase === 'reading';
      watch.phase = 'disconnected';
      if (first) {
        this.deps.log.warn({ err: news, store: this.description }, 'watch cannot read');
        watch.listener({ kind: 'disconnected', reason: news.message });
      }
      return;
    }
    watch.phase = 'reading';
    if (news.kind === 'reset') {
      watch.last = news.listing.revision;
      watch.listener(news);
      return;
    }
    for (const set of news.sets) {
      watch.last = set.revision;
      deliverChanges(set, watch.prefix, (event) => {
        if (watch.phase !== 'closed') watch.listener(event);
      });
    }
  }

  private news(watch: LmdbWatch): News {
    const sets = this.tables.changesAfter(watch.last, SETS_PER_POLL);
    return sets === undefined ? { kind: 'reset', listing: this.listing(watch.prefix) } : { kind: 'changes', sets };
  }

  /** For the timer, which has no caller to throw to. */
  private reading<T>(look: () => T): T | Error {
    try {
      this.db.resetReadTxn();
      return look();
    } catch (error) {
      return asError(error);
    }
  }

  private requireOpen(): void {
    if (this.closing !== undefined) throw closedError(this.description);
  }

  private async bounded(work: Promise<void>): Promise<void> {
    const end = await this.withinDeadline(work);
    if (end.kind === 'done') return;
    const err = end.kind === 'failed' ? end.error : undefined;
    this.deps.log.warn({ err, store: this.description }, 'coordination file was not closed in time');
  }

  private withinDeadline(work: Promise<void>): Promise<End> {
    return new Promise((resolve) => {
      const timer = this.deps.clock.schedule(this.deadlineMs, () => resolve({ kind: 'late' }));
      work
        .then(
          () => resolve({ kind: 'done' }),
          (error: unknown) => resolve({ kind: 'failed', error: asError(error) }),
        )
        .finally(() => timer.cancel());
    });
  }
}

type News =
  | { readonly kind: 'changes'; readonly sets: readonly ChangeSet[] }
  | { readonly kind: 'reset'; readonly listing: Listing };

type End = { readonly kind: 'done' } | { readonly kind: 'failed'; readonly error: Error } | { readonly kind: 'late' };

async function makeDirectory(deps: LmdbCoordinationDeps, options: LmdbCoordinationOptions): Promise<WriterLock> {
  try {
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    return await WriterLock.of(options.directory, deps.clock, deps.log);
  } catch (error) {
    throw cannotOpen(options, error);
  }
}

/** LMDB takes its own lock while it opens; holding ours, that is free. */
async function openDatabase(
  clock: Clock,
  options: LmdbCoordinationOptions,
  lock: WriterLock,
): Promise<RootDatabase<string, string>> {
  const endMs = clock.nowMs() + (options.startDeadlineMs ?? 5_000);
  const release = await lock.acquire(() => clock.nowMs() < endMs);
  if (release === undefined)
    throw new UnavailableError(`${describe(options)}: did not get the write lock in time to open the store`, {
      hint: 'A process of this cluster may be stopped while it holds the lock.',
    });
  try {
    return open<string, string>({
      path: join(options.directory, 'coordination.mdb'),
      noSubdir: true,
      encoding: 'string',
      // Durable before it is visible: nobody may act on a change that a power failure takes back.
      overlappingSync: false,
      maxReaders: 512,
      // Address space, not memory or disk: room enough that the map never has to grow under other processes.
      mapSize: 4 * 1024 ** 3,
    });
  } catch (error) {
    throw cannotOpen(options, error);
  } finally {
    release();
  }
}

function cannotOpen(options: LmdbCoordinationOptions, error: unknown): UnavailableError {
  return new UnavailableError(`${describe(options)} cannot be opened: ${asError(error).message}`, {
    hint: 'The directory must be writable, on a local disk, with room left.',
    cause: error,
  });
}

function describe(options: LmdbCoordinationOptions): string {
  return `embedded:${options.directory}`;
}

function checkOptions(options: LmdbCoordinationOptions): void {
  const wrong: string[] = [];
  const { deadlineMs, startDeadlineMs, pollMs, historyMax } = options;
  const positive = { deadlineMs, startDeadlineMs, pollMs, historyMax };
  for (const [name, value] of Object.entries(positive))
    if (value !== undefined && !(value > 0)) wrong.push(`${name} must be more than 0, is ${value}`);
  if (options.directory === '') wrong.push('directory is empty');
  if (wrong.length > 0) throw new InvalidArgumentError(`embedded coordination: ${wrong.join('; ')}`);
}
