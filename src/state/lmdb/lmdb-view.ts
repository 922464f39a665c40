import type { Transaction } from 'lmdb';
import { assert } from '../../kernel/assert.ts';
import { ABSENT, type RowSink, type StateKind } from '../cells.ts';
import type { CanonicalKey } from '../key-group-hash.ts';
import type { StateView, StateViews } from '../keyed-snapshot.ts';
import { agedRow, EXPIRED, type Expiry, isExpired } from '../stamped.ts';
import type { LmdbTable } from './lmdb-table.ts';
import type { Row } from './row.ts';
import type { RowCache } from './row-cache.ts';
import { afterPrefix, type DecodedRow } from './row-key.ts';

export interface LmdbCut {
  readonly groups: number;
  readonly tables: readonly { readonly table: LmdbTable; readonly expiry: Expiry | undefined }[];
  /** When each key group last changed, as of the cut. */
  readonly changedAt: Int32Array;
}

/** What the rows of one backend were at a cut. L4 */
export class LmdbViews implements StateViews {
  readonly groups: readonly (readonly LmdbStateView[])[];
  private readonly transaction: Transaction;
  private readonly release: () => void;
  /** The newest of what waited at the cut, by key group; undefined until it is asked for. */
  private overlays: Map<number, Overlay> | undefined;
  private waiting: readonly Row[];
  /** Rows on disk that were found expired, up to a bound. */
  private readonly expired: {
    readonly view: LmdbStateView;
    readonly key: CanonicalKey;
    readonly mapKey: CanonicalKey | undefined;
  }[] = [];
  private open = true;

  constructor(
    private readonly cache: RowCache,
    cut: LmdbCut,
  ) {
    this.waiting = cache.waiting();
    this.release = cache.hold();
    this.transaction = cache.db.useReadTransaction();
    this.groups = Array.from({ length: cut.groups }, (_, group) => {
      const changedAt = cut.changedAt[group] ?? 0;
      return cut.tables.map(({ table, expiry }) => new LmdbStateView(this, { table, group, expiry, changedAt }));
    });
  }

  removedSince(): boolean {
    // Removals are changes like any other.
    return false;
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    for (const group of this.groups) for (const view of group) view.drop();
    this.transaction.done();
    this.waiting = [];
    this.overlays = undefined;
    this.release();
    for (const { view, key, mapKey } of this.expired.splice(0)) view.purge(this.cache, key, mapKey);
  }

  noteExpired(view: LmdbStateView, key: CanonicalKey, mapKey: CanonicalKey | undefined): void {
    if (this.expired.length < PURGED_ROWS_MAX) this.expired.push({ view, key, mapKey });
  }

  overlay(group: number): Overlay {
    if (this.overlays === undefined) {
      this.overlays = new Map();
      for (const row of this.waiting) {
        let overlay = this.overlays.get(row.group);
        if (overlay === undefined) {
          overlay = new Overlay();
          this.overlays.set(row.group, overlay);
        }
        overlay.add(row);
      }
      this.waiting = [];
    }
    return this.overlays.get(group) ?? NOTHING;
  }

  rows(table: LmdbTable, group: number): Iterator<{ readonly key: Buffer; readonly value: Buffer }> {
    const start = this.cache.codec.tablePrefix(group, table.id);
    const end = afterPrefix(start) as Buffer;
    return this.cache.db.getRange({ start, end, transaction: this.transaction })[Symbol.iterator]();
  }

  decode(row: { readonly key: Buffer; readonly value: Buffer }, isMap: boolean): DecodedRow {
    return this.cache.codec.readRow(row.key, row.value, isMap);
  }

  /** L3: the bytes, if they were taken, are what the value was. */
  valueOf(row: Row): unknown {
    return row.bytes === undefined ? row.value : this.cache.codec.readValue(row.bytes, row);
  }
}

/** Removed after one snapshot: a few milliseconds. The next finds the rest. */
const PURGED_ROWS_MAX = 1_024;

/** Rows of one key group; of each only the newest. */
class Overlay {
  private readonly rows = new Map<LmdbTable, Map<CanonicalKey, Row | Map<CanonicalKey, Row>>>();

  add(row: Row): void {
    let rows = this.rows.get(row.owner);
    if (rows === undefined) {
      rows = new Map();
      this.rows.set(row.owner, rows);
    }
    if (row.mapKey === undefined) {
      rows.set(row.key, row);
      return;
    }
    let entries = rows.get(row.key) as Map<CanonicalKey, Row> | undefined;
    if (entries === undefined) {
      entries = new Map();
      rows.set(row.key, entries);
    }
    entries.set(row.mapKey, row);
  }

  has(table: LmdbTable, key: CanonicalKey, mapKey: CanonicalKey | undefined): boolean {
    const found = this.rows.get(table)?.get(key);
    return mapKey === undefined
      ? found !== undefined
      : (found as Map<CanonicalKey, Row> | undefined)?.has(mapKey) === true;
  }

  *of(table: LmdbTable): Generator<Row> {
    for (const found of this.rows.get(table)?.values() ?? []) {
      if (found instanceof Map) yield* found.values();
      else yield found;
    }
  }
}

const NOTHING = new Overlay();

class LmdbStateView implements StateView {
  readonly name: string;
  readonly kind: StateKind;
  private stored: Iterator<{ readonly key: Buffer; readonly value: Buffer }> | undefined;
  private waiting: Iterator<Row> | undefined;
  private dropped = false;

  constructor(
    private readonly views: LmdbViews,
    private readonly of: {
      readonly table: LmdbTable;
      readonly group: number;
      readonly expiry: Expiry | undefined;
      readonly changedAt: number;
    },
  ) {
    this.name = of.table.name;
    this.kind = of.table.kind;
  }

  changedSince(cut: number): boolean {
    return this.of.changedAt > cut;
  }

  visit(rowsMax: number, sink: RowSink): boolean {
    assert(!this.dropped, 'a view is not visited after its end');
    const { table, group } = this.of;
    const isMap = table.layout === 'map';
    const overlay = this.views.overlay(group);
    let left = rowsMax;
    this.stored ??= this.views.rows(table, group);
    while (this.waiting === undefined) {
      const next = this.stored.next();
      if (next.done === true) {
        this.waiting = overlay.of(table);
        break;
      }
      const { key, mapKey, value } = this.views.decode(next.value, isMap);
      if (!overlay.has(table, key, mapKey)) left -= this.emit(key, mapKey, value(), sink);
      if (--left <= 0) return false;
    }
    for (;;) {
      const next = this.waiting.next();
      if (next.done === true) {
        this.drop();
        return true;
      }
      const row = next.value;
      if (row.value !== ABSENT) left -= this.emit(row.key, row.mapKey, this.views.valueOf(row), sink);
      if (--left <= 0) return false;
    }
  }

  drop(): void {
    if (this.dropped) return;
    this.dropped = true;
    // Lets go of the cursor.
    this.stored?.return?.();
    this.stored = undefined;
    this.waiting = undefined;
  }

  /** Removes a row that was expired at the cut and has not been used since. No change that a snapshot need know of. */
  purge(cache: RowCache, key: CanonicalKey, mapKey: CanonicalKey | undefined): void {
    const { table, group, expiry } = this.of;
    const row = cache.find(table, group, key, mapKey);
    if (row !== undefined && isExpired(row.value, expiry)) cache.write(row, table, group, row.key, row.mapKey, ABSENT);
  }

  /** How many rows it stood for, beyond the first. */
  private emit(key: CanonicalKey, mapKey: CanonicalKey | undefined, value: unknown, sink: RowSink): number {
    const { table, expiry } = this.of;
    if (table.layout === 'list') {
      const items = value as readonly unknown[];
      const rows = items.map((item) => agedRow(item, expiry)).filter((row) => row !== EXPIRED);
      if (rows.length === 0) return 0;
      sink.listStart(key);
      for (const row of rows) sink.listItem(row);
      sink.listEnd();
      return rows.length;
    }
    const row = agedRow(value, expiry);
    if (row === EXPIRED) {
      this.views.noteExpired(this, key, mapKey);
      return 0;
    }
    if (mapKey === undefined) sink.single(key, row);
    else sink.mapEntry(key, mapKey, row);
    return 0;
  }
}
