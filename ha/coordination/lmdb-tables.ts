import type { Database } from 'lmdb';
import { asError, CorruptError, MillraceError } from '../../src/kernel/errors.ts';
import type { Entry, LeaseId, Revision } from './coordination.ts';
import type { Change, ChangeSet, LeaseRecord, Tables } from './revision-engine.ts';

/**
 * The engine's tables in one LMDB database. Writers call it inside a write transaction, readers on
 * one read snapshot. Record keys:
 *
 *   m                       format, revision, lease sequence, boot id
 *   e/<key>                 an entry
 *   l/<lease>               a lease
 *   c/<revision, 16 hex>    the change set of a revision, for watchers of all processes
 */
const FORMAT = 1;
/** Keys are ASCII below this, so `<prefix>\x7f` ends every range. */
const AFTER_ALL = '\x7f';

interface Meta {
  readonly format: number;
  readonly revision: string;
  readonly leaseSequence: number;
  readonly bootId: string;
}

interface StoredEntry {
  readonly v: string;
  readonly m: string;
  readonly c: string;
  readonly l?: string;
}

export class LmdbTables implements Tables {
  constructor(
    private readonly db: Database<string, string>,
    private readonly historyMax: number,
  ) {}

  /** An empty store is at revision 1, as etcd's. */
  revision(): Revision {
    return BigInt(this.meta().revision);
  }

  bootId(): string {
    return this.meta().bootId;
  }

  setBootId(bootId: string): void {
    this.putMeta({ ...this.meta(), bootId });
  }

  entry(key: string): Entry | undefined {
    const text = this.db.get(`e/${key}`);
    return text === undefined ? undefined : decodeEntry(key, parse<StoredEntry>(text, key));
  }

  entriesUnder(prefix: string): readonly Entry[] {
    const entries: Entry[] = [];
    for (const { key, value } of this.range(`e/${prefix}`))
      entries.push(decodeEntry(key.slice(2), parse<StoredEntry>(value, key)));
    return entries;
  }

  putEntry(entry: Entry): void {
    this.db.putSync(`e/${entry.key}`, JSON.stringify(encodeEntry(entry)));
  }

  removeEntry(key: string): void {
    this.db.removeSync(`e/${key}`);
  }

  lease(id: LeaseId): LeaseRecord | undefined {
    const text = this.db.get(`l/${id}`);
    return text === undefined ? undefined : parse<LeaseRecord>(text, `lease ${id}`);
  }

  leases(): readonly LeaseRecord[] {
    return this.range('l/').map(({ key, value }) => parse<LeaseRecord>(value, key));
  }

  putLease(record: LeaseRecord): void {
    this.db.putSync(`l/${record.id}`, JSON.stringify(record));
  }

  removeLease(id: LeaseId): void {
    this.db.removeSync(`l/${id}`);
  }

  newLeaseId(): LeaseId {
    const meta = this.meta();
    this.putMeta({ ...meta, leaseSequence: meta.leaseSequence + 1 });
    return String(meta.leaseSequence + 1);
  }

  commit(set: ChangeSet): void {
    this.putMeta({ ...this.meta(), revision: String(set.revision) });
    this.db.putSync(changeKey(set.revision), JSON.stringify(set.changes.map(encodeChange)));
    this.trim(set.revision - BigInt(this.historyMax));
  }

  /** Forgets change sets up to and including `revision`. A few at a time: one write makes room for one. */
  trim(revision: Revision, limit = 8): void {
    if (revision < 1n) return;
    const old = [...this.db.getKeys({ start: 'c/', end: `${changeKey(revision)}${AFTER_ALL}`, limit })];
    for (const key of old) this.db.removeSync(key);
  }

  /**
   * Change sets after a revision, at most `limit`, or undefined when some are gone. It proves
   * itself: revisions are dense, so a missing one shows, whoever trimmed it.
   */
  changesAfter(after: Revision, limit: number): readonly ChangeSet[] | undefined {
    // Revision 1 is the empty store.
    const revision = after < 1n ? 1n : after;
    const current = this.revision();
    if (revision === current) return [];
    // A store that was removed and made anew is behind its watchers: they must start over.
    if (revision > current) return undefined;
    const sets: ChangeSet[] = [];
    for (const { key, value } of this.range('c/', changeKey(revision + 1n), limit)) {
      const found = BigInt(`0x${key.slice(2)}`);
      if (found !== revision + BigInt(sets.length) + 1n) return undefined;
      sets.push({ revision: found, changes: parse<StoredChange[]>(value, key).map(decodeChange) });
    }
    return sets.length === 0 ? undefined : sets;
  }

  private range(prefix: string, start = prefix, limit?: number): { key: string; value: string }[] {
    const options = { start, end: `${prefix}${AFTER_ALL}` };
    return [...this.db.getRange(limit === undefined ? options : { ...options, limit })];
  }

  private meta(): Meta {
    const text = this.db.get('m');
    if (text === undefined) return { format: FORMAT, revision: '1', leaseSequence: 0, bootId: '' };
    const meta = parse<Meta>(text, 'the header');
    if (meta.format !== FORMAT)
      throw new MillraceError(
        'UNSUPPORTED_VERSION',
        `coordination file has format ${meta.format}, this version reads ${FORMAT}`,
        {
          hint: 'Use the version of millrace that wrote it, or a new directory.',
        },
      );
    return meta;
  }

  private putMeta(meta: Meta): void {
    this.db.putSync('m', JSON.stringify(meta));
  }
}

type StoredChange = { readonly p: string; readonly e: StoredEntry } | { readonly d: string };

function encodeChange(change: Change): StoredChange {
  return change.kind === 'put' ? { p: change.entry.key, e: encodeEntry(change.entry) } : { d: change.key };
}

function decodeChange(stored: StoredChange): Change {
  return 'd' in stored ? { kind: 'delete', key: stored.d } : { kind: 'put', entry: decodeEntry(stored.p, stored.e) };
}

function encodeEntry(entry: Entry): StoredEntry {
  const stored = { v: entry.value, m: String(entry.modRevision), c: String(entry.createRevision) };
  return entry.lease === undefined ? stored : { ...stored, l: entry.lease };
}

function decodeEntry(key: string, stored: StoredEntry): Entry {
  return { key, value: stored.v, modRevision: BigInt(stored.m), createRevision: BigInt(stored.c), lease: stored.l };
}

function changeKey(revision: Revision): string {
  return `c/${revision.toString(16).padStart(16, '0')}`;
}

function parse<T>(text: string, what: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    throw new CorruptError(`the coordination record of ${what} is not readable`, { cause: asError(error) });
  }
}
