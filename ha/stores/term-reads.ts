import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type {
  Coordination,
  Entry,
  Lease,
  LeaseId,
  Listing,
  Op,
  Revision,
  Transaction,
  TxnResult,
  Watch,
  WatchEvent,
} from '../coordination/coordination.ts';
import type { ClusterKeys } from './cluster-keys.ts';

interface Snapshot {
  /** All entries under each prefix, as of one linearizable listing that came after the election. */
  readonly listings: ReadonlyMap<string, Listing>;
  readonly entries: ReadonlyMap<string, Entry>;
}

interface Term {
  snapshot: Promise<Snapshot | undefined>;
  /** Keys and prefixes that this process has sent a write for: of them the store must be asked. */
  readonly written: Set<string>;
  readonly writtenPrefixes: Set<string>;
}

/** Recovery is over by then, or slow for other reasons; a listing that is kept for ever would only grow old. */
const USEFUL_MS = 15_000;

/**
 * Coordination for the stores of a master that may lead.
 *
 * A new leader reads, for each job, its record, its checkpoints and its counter: hundreds of round trips
 * where five listings hold the same. So when leadership is granted all pointers are listed once, and the
 * term's first reads are answered from there.
 *
 * Invariant R1. What is answered from the listing is what the store would answer: it was made after the
 * election, since which nobody but this leader can write under these prefixes (rule 2), and what this
 * process itself has written, or may have, is asked of the store. Should leadership be lost unnoticed, the
 * reads are old, and whatever is decided by them is refused.
 */
export class TermReads implements Coordination {
  readonly description: string;
  private readonly prefixes: readonly string[];
  private term: Term | undefined;
  private forgetting: Timer | undefined;

  constructor(
    private readonly store: Coordination,
    keys: ClusterKeys,
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {
    this.description = store.description;
    this.prefixes = [keys.jobs, keys.cancels, keys.results, keys.allCheckpoints, keys.counters];
  }

  /** Leadership was granted: to be called before anybody reads. */
  begin(): void {
    const term: Term = { snapshot: Promise.resolve(undefined), written: new Set(), writtenPrefixes: new Set() };
    term.snapshot = this.takeSnapshot();
    this.end();
    this.term = term;
    this.forgetting = this.clock.schedule(USEFUL_MS, () => this.end());
  }

  end(): void {
    this.forgetting?.cancel();
    this.term = undefined;
  }

  async get(key: string): Promise<Entry | undefined> {
    const term = this.covering(key);
    const snapshot = await term?.snapshot;
    if (term === undefined || snapshot === undefined || this.touched(term, key)) return this.store.get(key);
    return snapshot.entries.get(key);
  }

  async list(prefix: string): Promise<Listing> {
    const term = this.covering(prefix);
    const snapshot = await term?.snapshot;
    if (term === undefined || snapshot === undefined || this.touchedUnder(term, prefix)) return this.store.list(prefix);
    const whole = this.prefixes.find((one) => prefix.startsWith(one)) ?? prefix;
    const listing = snapshot.listings.get(whole);
    if (listing === undefined) return this.store.list(prefix);
    if (whole === prefix) return listing;
    return { ...listing, entries: entriesUnder(listing.entries, prefix) };
  }

  txn(transaction: Transaction): Promise<TxnResult> {
    const { term } = this;
    // Before it is sent: whether it takes effect is not known until it is too late.
    if (term !== undefined) for (const op of transaction.then) note(term, op);
    return this.store.txn(transaction);
  }

  grantLease(ttlMs: number): Promise<Lease> {
    return this.store.grantLease(ttlMs);
  }

  keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }> {
    return this.store.keepAlive(lease);
  }

  revokeLease(lease: LeaseId): Promise<void> {
    return this.store.revokeLease(lease);
  }

  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch {
    return this.store.watch(prefix, afterRevision, listener);
  }

  /** The store is its owner's to close. */
  async close(): Promise<void> {
    this.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async takeSnapshot(): Promise<Snapshot | undefined> {
    try {
      const listed = await Promise.all(
        this.prefixes.map(async (prefix) => [prefix, await this.store.list(prefix)] as const),
      );
      const entries = new Map(
        listed.flatMap(([, listing]) => listing.entries.map((entry) => [entry.key, entry] as const)),
      );
      return { listings: new Map(listed), entries };
    } catch (error) {
      // Every read then asks for itself, and has its own way of trying again.
      this.log.debug({ err: asError(error) }, 'no listing for a new term');
      return undefined;
    }
  }

  private covering(key: string): Term | undefined {
    return this.prefixes.some((prefix) => key.startsWith(prefix)) ? this.term : undefined;
  }

  private touched(term: Term, key: string): boolean {
    return term.written.has(key) || [...term.writtenPrefixes].some((prefix) => key.startsWith(prefix));
  }

  private touchedUnder(term: Term, prefix: string): boolean {
    for (const key of term.written) if (key.startsWith(prefix)) return true;
    for (const other of term.writtenPrefixes) if (other.startsWith(prefix) || prefix.startsWith(other)) return true;
    return false;
  }
}

function note(term: Term, op: Op): void {
  if (op.kind === 'put' || op.kind === 'delete') term.written.add(op.key);
  else if (op.kind === 'deletePrefix') term.writtenPrefixes.add(op.prefix);
}

/** The listing is sorted by key: those under a prefix stand together. */
function entriesUnder(sorted: readonly Entry[], prefix: string): readonly Entry[] {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle]?.key ?? '') < prefix) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (sorted[end]?.key.startsWith(prefix) === true) end++;
  return sorted.slice(low, end);
}
