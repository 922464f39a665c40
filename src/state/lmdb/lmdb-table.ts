import { type CellLayout, layoutOf, type StateKind } from '../cells.ts';
import type { CanonicalKey } from '../key-group-hash.ts';
import type { Aging } from '../stamped.ts';
import type { Row } from './row.ts';

/** One named state and its rows in memory. */
export class LmdbTable {
  readonly layout: CellLayout;
  aging: Aging | undefined;
  sawStamps = false;
  sawUnstamped = false;
  /** For layouts other than maps. */
  readonly rows = new Map<CanonicalKey, Row>();
  /** For maps: the rows of each map's entries. */
  readonly maps = new Map<CanonicalKey, Map<CanonicalKey, Row>>();

  constructor(
    readonly id: number,
    readonly name: string,
    readonly kind: StateKind,
  ) {
    this.layout = layoutOf(kind);
  }

  find(key: CanonicalKey, mapKey: CanonicalKey | undefined): Row | undefined {
    return mapKey === undefined ? this.rows.get(key) : this.maps.get(key)?.get(mapKey);
  }

  /** Whether it is new here. */
  keep(row: Row): boolean {
    if (row.mapKey === undefined) {
      const before = this.rows.size;
      this.rows.set(row.key, row);
      return this.rows.size > before;
    }
    let entries = this.maps.get(row.key);
    if (entries === undefined) {
      entries = new Map();
      this.maps.set(row.key, entries);
    }
    const before = entries.size;
    entries.set(row.mapKey, row);
    return entries.size > before;
  }

  forget(row: Row): void {
    if (row.mapKey === undefined) {
      this.rows.delete(row.key);
      return;
    }
    const entries = this.maps.get(row.key);
    entries?.delete(row.mapKey);
    if (entries?.size === 0) this.maps.delete(row.key);
  }

  /** Every row, each once in a round, while rows come and go. */
  *all(): Generator<Row> {
    yield* this.rows.values();
    for (const entries of this.maps.values()) yield* entries.values();
  }
}
