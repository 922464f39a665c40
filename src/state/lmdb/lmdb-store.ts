import { assert } from '../../kernel/assert.ts';
import type { KeyGroupRange } from '../../contracts/key-groups.ts';
import type { ListCells, MapCells, RowSink, SingleCells, StateKind } from '../cells.ts';
import { otherKind } from '../heap-table.ts';
import type { CanonicalKey } from '../key-group-hash.ts';
import type { StateViews } from '../keyed-snapshot.ts';
import type { KeyedStore } from '../keyed-state.ts';
import { type Aging, Stamped } from '../stamped.ts';
import { LmdbListCells, LmdbMapCells, LmdbSingleCells, SelectedKey } from './lmdb-cells.ts';
import { LmdbTable } from './lmdb-table.ts';
import { LmdbViews } from './lmdb-view.ts';
import { RowCache, type RowCacheOptions } from './row-cache.ts';

/** Keyed state on disk, for what does not fit into memory; what is in use is in memory too. See `RowCache`. */
export class LmdbStore implements KeyedStore {
  private readonly cache: RowCache;
  private readonly tables = new Map<string, LmdbTable>();
  private readonly selected: SelectedKey;
  private readonly groups: number;
  /** The generation in which each key group last changed. */
  private readonly changedAt: Int32Array;
  private readonly onChange = (group: number) => {
    this.changedAt[group] = this.cache.generation;
  };

  constructor(
    private readonly range: KeyGroupRange,
    maxParallelism: number,
    options: RowCacheOptions,
  ) {
    this.cache = new RowCache(options);
    this.selected = new SelectedKey(range, maxParallelism);
    this.groups = range.last - range.first + 1;
    this.changedAt = new Int32Array(this.groups);
  }

  select(key: CanonicalKey): void {
    this.selected.select(key);
  }

  declare(name: string, kind: StateKind, aging: Aging | undefined): LmdbTable {
    const table = this.table(name, kind);
    table.aging = aging;
    return table;
  }

  single(name: string): SingleCells {
    return new LmdbSingleCells(this.cache, this.tableOf(name), this.selected, this.onChange);
  }

  list(name: string): ListCells {
    return new LmdbListCells(this.cache, this.tableOf(name), this.selected, this.onChange);
  }

  map(name: string): MapCells {
    return new LmdbMapCells(this.cache, this.tableOf(name), this.selected, this.onChange);
  }

  *keys(name: string): Generator<CanonicalKey> {
    let last: CanonicalKey | undefined;
    for (const key of this.scan(name, (found) => found)) {
      // Entries of one map follow each other on disk.
      if (key !== last) yield key;
      last = key;
    }
  }

  *values(name: string): Generator<unknown> {
    yield* this.scan(name, (_, value) => value);
  }

  open(name: string, kind: StateKind, keyGroup: number): RowSink & { end(): void } {
    return new RestoredRows(this.cache, this.table(name, kind), keyGroup - this.range.first);
  }

  restored(): number {
    return this.cache.closeGeneration();
  }

  cut(): { readonly cut: number; readonly views: StateViews } {
    const cut = this.cache.closeGeneration();
    const tables = [...this.tables.values()].map((table) => ({ table, expiry: table.aging?.expiry() }));
    return {
      cut,
      views: new LmdbViews(this.cache, { groups: this.groups, tables, changedAt: this.changedAt.slice() }),
    };
  }

  get size(): number {
    return this.cache.rowsMax;
  }

  get estimatedBytes(): number {
    return this.cache.estimatedBytes;
  }

  dispose(): void {
    this.selected.select(undefined);
    this.cache.dispose();
  }

  /** Everything that one state holds now. What waits is written first, so that all is in one place. */
  private *scan<T>(name: string, of: (key: CanonicalKey, value: unknown) => T): Generator<T> {
    const table = this.tables.get(name);
    if (table === undefined) return;
    this.cache.flushAll();
    const tables = [{ table, expiry: undefined }];
    const views = new LmdbViews(this.cache, { groups: this.groups, tables, changedAt: this.changedAt });
    try {
      for (const group of views.groups) {
        for (const view of group) {
          const found: T[] = [];
          const sink = collect((key, value) => found.push(of(key, value)));
          for (let finished = false; !finished; ) {
            finished = view.visit(SCANNED_ROWS, sink);
            yield* found.splice(0);
          }
        }
      }
    } finally {
      views.close();
    }
  }

  private table(name: string, kind: StateKind): LmdbTable {
    let table = this.tables.get(name);
    if (table === undefined) {
      table = new LmdbTable(this.tables.size, name, kind);
      this.tables.set(name, table);
      this.cache.tables.push(table);
    }
    if (table.kind !== kind) throw otherKind(name, table.kind, kind);
    return table;
  }

  private tableOf(name: string): LmdbTable {
    const table = this.tables.get(name);
    assert(table !== undefined, 'a state is declared before it is used');
    return table;
  }
}

const SCANNED_ROWS = 256;

function collect(row: (key: CanonicalKey, value: unknown) => void): RowSink {
  let list: { readonly key: CanonicalKey; readonly items: unknown[] } | undefined;
  return {
    single: row,
    listStart: (key) => {
      list = { key, items: [] };
    },
    listItem: (item) => void list?.items.push(item),
    listEnd: () => {
      if (list !== undefined) row(list.key, list.items);
    },
    mapEntry: (key, _, value) => row(key, value),
  };
}

/** Written in one transaction. */
const RESTORED_ROWS = 4_096;

/** Rows on their way from a snapshot to the disk, past the cache. */
class RestoredRows implements RowSink {
  private list: unknown[] = [];
  private listKey: CanonicalKey | undefined;
  private batch: { readonly key: Buffer; readonly value: Buffer }[] = [];

  constructor(
    private readonly cache: RowCache,
    private readonly table: LmdbTable,
    private readonly group: number,
  ) {}

  single(key: CanonicalKey, value: unknown): void {
    this.note(value);
    this.put(key, undefined, value);
  }

  listStart(key: CanonicalKey): void {
    this.listKey = key;
    this.list = [];
  }

  listItem(item: unknown): void {
    this.note(item);
    this.list.push(item);
  }

  listEnd(): void {
    assert(this.listKey !== undefined, 'a list has a start before its end');
    if (this.list.length > 0) this.put(this.listKey, undefined, this.list);
    this.list = [];
  }

  mapEntry(key: CanonicalKey, mapKey: CanonicalKey, value: unknown): void {
    this.note(value);
    this.put(key, mapKey, value);
  }

  /** After the last row. */
  end(): void {
    if (this.batch.length === 0) return;
    const batch = this.batch.sort((a, b) => a.key.compare(b.key));
    this.batch = [];
    const { db } = this.cache;
    this.cache.transaction(() => {
      for (const { key, value } of batch) db.putSync(key, value);
    });
  }

  private put(key: CanonicalKey, mapKey: CanonicalKey | undefined, value: unknown): void {
    const { codec, sizes } = this.cache;
    const address = { group: this.group, table: this.table.id, key, mapKey };
    this.batch.push({ key: Buffer.from(codec.key(address)), value: codec.value(address, value) });
    sizes.sample(key, value);
    if (this.batch.length >= RESTORED_ROWS) this.end();
  }

  private note(value: unknown): void {
    if (value instanceof Stamped) this.table.sawStamps = true;
    else this.table.sawUnstamped = true;
  }
}
