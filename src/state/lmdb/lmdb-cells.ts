import { assert } from '../../kernel/assert.ts';
import type { KeyGroupRange } from '../../contracts/key-groups.ts';
import { ABSENT, type ListCells, type MapCells, noKey, type SingleCells } from '../cells.ts';
import { type CanonicalKey, keyGroupForCanonical } from '../key-group-hash.ts';
import { ownString } from '../state-value.ts';
import type { LmdbTable } from './lmdb-table.ts';
import type { Row } from './row.ts';
import type { RowCache } from './row-cache.ts';
import { afterPrefix } from './row-key.ts';

/** The key that all states of a backend refer to. */
export class SelectedKey {
  /** Changes whenever a key is selected. */
  version = 0;
  private selected: CanonicalKey | undefined;
  private groupOfKey = -1;

  constructor(
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
  ) {}

  select(key: CanonicalKey | undefined): void {
    this.selected = key;
    this.groupOfKey = -1;
    this.version++;
  }

  get key(): CanonicalKey {
    if (this.selected === undefined) throw noKey();
    return this.selected;
  }

  /** Counted from the first of the range. */
  get group(): number {
    if (this.groupOfKey < 0) {
      const keyGroup = keyGroupForCanonical(this.key, this.maxParallelism);
      const { first, last } = this.range;
      assert(keyGroup >= first && keyGroup <= last, 'a record reaches the owner of its key group');
      this.groupOfKey = keyGroup - first;
    }
    return this.groupOfKey;
  }
}

/** Hears of each change, by key group. */
export type OnChange = (group: number) => void;

/** The one row of a key in a state that is no map. */
abstract class OneRowCells {
  private row: Row | undefined;
  private foundAt = -1;

  constructor(
    protected readonly cache: RowCache,
    private readonly table: LmdbTable,
    private readonly selected: SelectedKey,
    private readonly onChange: OnChange,
  ) {}

  protected find(): Row | undefined {
    const { selected } = this;
    if (this.foundAt !== selected.version) {
      this.row = this.cache.find(this.table, selected.group, selected.key, undefined);
      this.foundAt = selected.version;
    }
    return this.row;
  }

  protected write(value: unknown): void {
    const { selected, table } = this;
    const known = this.foundAt === selected.version ? this.row : undefined;
    const key = known?.key ?? table.find(selected.key, undefined)?.key ?? owned(selected.key);
    this.row = this.cache.write(known, table, selected.group, key, undefined, value);
    this.foundAt = selected.version;
    this.onChange(selected.group);
  }

  protected erase(): void {
    if (this.find() === undefined) return;
    this.write(ABSENT);
    this.row = undefined;
  }
}

export class LmdbSingleCells extends OneRowCells implements SingleCells {
  get(): unknown {
    const row = this.find();
    return row === undefined ? undefined : this.cache.give(row);
  }

  set(value: unknown): void {
    this.write(value);
  }

  remove(): void {
    this.erase();
  }
}

/** The whole list in one row: large lists are better kept as maps. */
export class LmdbListCells extends OneRowCells implements ListCells {
  get(): readonly unknown[] | undefined {
    const row = this.find();
    return row === undefined ? undefined : (this.cache.give(row) as readonly unknown[]);
  }

  append(items: readonly unknown[]): void {
    if (items.length === 0) return;
    const row = this.find();
    if (row === undefined) {
      this.write([...items]);
      return;
    }
    this.cache.release(row);
    const list = row.value as unknown[];
    for (const item of items) list.push(item);
    this.write(list);
  }

  set(items: unknown[]): void {
    if (items.length === 0) this.erase();
    else this.write(items);
  }

  remove(): void {
    this.erase();
  }
}

/** A row for each entry. */
export class LmdbMapCells implements MapCells {
  constructor(
    private readonly cache: RowCache,
    private readonly table: LmdbTable,
    private readonly selected: SelectedKey,
    private readonly onChange: OnChange,
  ) {}

  get(mapKey: CanonicalKey): unknown {
    const row = this.cache.find(this.table, this.selected.group, this.selected.key, mapKey);
    return row === undefined ? ABSENT : this.cache.give(row);
  }

  set(mapKey: CanonicalKey, value: unknown): void {
    const { cache, table, selected } = this;
    const { key, group } = selected;
    const known = table.find(key, mapKey);
    cache.write(known, table, group, known?.key ?? owned(key), known?.mapKey ?? owned(mapKey), value);
    this.onChange(group);
  }

  delete(mapKey: CanonicalKey): void {
    const { cache, table, selected } = this;
    const row = cache.find(table, selected.group, selected.key, mapKey);
    if (row === undefined) return;
    cache.write(row, table, selected.group, row.key, row.mapKey, ABSENT);
    this.onChange(selected.group);
  }

  *entries(): Generator<readonly [CanonicalKey, unknown]> {
    const { cache, table, selected } = this;
    const { key, group } = selected;
    // Those that may not be met on disk. What is written meanwhile may be met in both places, or in neither.
    const waiting = new Set<CanonicalKey>();
    for (const [mapKey, row] of table.maps.get(key) ?? []) if (row.listed) waiting.add(mapKey);
    const start = cache.codec.mapPrefix(group, table.id, key);
    for (const row of cache.db.getRange({ start, end: afterPrefix(start) as Buffer })) {
      const { mapKey, value } = cache.codec.readRow(row.key, row.value, true);
      assert(mapKey !== undefined, 'a row of a map has a map key');
      waiting.delete(mapKey);
      const cached = table.find(key, mapKey);
      if (cached === undefined) yield [mapKey, value()];
      else if (cached.value !== ABSENT) yield [mapKey, cache.give(cached)];
    }
    for (const mapKey of waiting) {
      const row = cache.find(table, group, key, mapKey);
      if (row !== undefined) yield [mapKey, cache.give(row)];
    }
  }

  isEmpty(): boolean {
    for (const _ of this.entries()) return false;
    return true;
  }

  clear(): void {
    for (const [mapKey] of [...this.entries()]) this.delete(mapKey);
  }
}

function owned(key: CanonicalKey): CanonicalKey {
  return typeof key === 'string' ? ownString(key) : key;
}
