import { DEAD } from './cell-epochs.ts';
import { type Cell, type MapEntries, mapOf } from './cell-group.ts';
import { ABSENT, type ListCells, type MapCells, noKey, type SingleCells } from './cells.ts';
import type { HeapTable } from './heap-table.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { ValueState } from './ports.ts';
import { admit, isMutable } from './state-value.ts';

/** Shared by all states of a backend. */
export interface CurrentKey {
  key: CanonicalKey | undefined;
  /** Changes whenever a key is set, and when what was found of it has become something else. */
  version: number;
}

/** Finds the cell of the current key, once for all uses within one record. */
abstract class HeapCells {
  protected cell: Cell | undefined;
  private foundAt = -1;

  constructor(
    protected readonly table: HeapTable,
    private readonly current: CurrentKey,
  ) {}

  protected find(): Cell | undefined {
    const { current } = this;
    if (this.foundAt !== current.version) {
      if (current.key === undefined) throw noKey();
      this.cell = this.table.find(current.key);
      this.foundAt = current.version;
    }
    return this.cell;
  }

  /** After `find` has found none. */
  protected insert(value: unknown): Cell {
    const cell = this.table.insert(this.current.key as CanonicalKey, value);
    // Making room for it may have swept others, never this one.
    this.cell = cell;
    return cell;
  }

  protected removeCell(): void {
    const cell = this.find();
    if (cell === undefined) return;
    this.table.remove(cell);
    this.cell = undefined;
  }
}

/** The cells of single-valued states; of a value state without a time-to-live also what the user holds. */
export class HeapSingleCells extends HeapCells implements SingleCells, ValueState<unknown> {
  value(): unknown {
    const cell = this.find();
    if (cell === undefined) return undefined;
    const { value } = cell;
    if (cell.epoch <= this.table.epochs.needed && isMutable(value)) return this.table.release(cell);
    return value;
  }

  update(value: unknown): void {
    if (value === undefined) this.removeCell();
    else this.set(typeof value === 'number' ? value : admit(value));
  }

  clear(): void {
    this.removeCell();
  }

  get(): unknown {
    return this.value();
  }

  remove(): void {
    this.removeCell();
  }

  set(value: unknown): void {
    const cell = this.find();
    if (cell === undefined) {
      this.insert(value);
      return;
    }
    const { table } = this;
    if (cell.epoch <= table.epochs.needed) table.touch(cell);
    else cell.epoch = table.epochs.current;
    cell.value = value;
    table.sample(undefined, value);
  }
}

export class HeapListCells extends HeapCells implements ListCells {
  get(): readonly unknown[] | undefined {
    const cell = this.find();
    if (cell === undefined) return undefined;
    if (cell.epoch <= this.table.epochs.needed && (cell.value as unknown[]).some(isMutable)) this.table.release(cell);
    return cell.value as readonly unknown[];
  }

  append(items: readonly unknown[]): void {
    if (items.length === 0) return;
    const cell = this.find();
    if (cell === undefined) {
      // Not grown but made: as many keys have one item only, and V8 makes room for 17 when it grows an array.
      this.insert([...items]);
    } else {
      this.table.touch(cell);
      const list = cell.value as unknown[];
      for (const item of items) list.push(item);
    }
    for (const item of items) this.table.added(undefined, item);
  }

  set(items: unknown[]): void {
    if (items.length === 0) {
      this.removeCell();
      return;
    }
    const cell = this.find();
    if (cell === undefined) {
      this.insert(items);
    } else {
      this.table.touch(cell);
      this.table.units -= (cell.value as unknown[]).length;
      cell.value = items;
    }
    for (const item of items) this.table.added(undefined, item);
  }

  remove(): void {
    this.removeCell();
  }
}

export class HeapMapCells extends HeapCells implements MapCells {
  get(mapKey: CanonicalKey): unknown {
    const cell = this.find();
    if (cell === undefined) return ABSENT;
    const entry = mapOf(cell).get(mapKey);
    return entry === undefined ? ABSENT : this.read(cell, entry);
  }

  set(mapKey: CanonicalKey, value: unknown): void {
    const { table } = this;
    let cell = this.find();
    const entry = cell === undefined ? undefined : mapOf(cell).get(mapKey);
    if (cell !== undefined && entry !== undefined) {
      table.touchEntry(cell, entry);
      entry.value = value;
      table.sample(undefined, value);
      return;
    }
    cell ??= this.insert(new Map() satisfies MapEntries);
    table.insertEntry(cell, mapKey, value);
  }

  delete(mapKey: CanonicalKey): void {
    const cell = this.find();
    const entry = cell === undefined ? undefined : mapOf(cell).get(mapKey);
    if (cell === undefined || entry === undefined) return;
    this.table.removeEntry(cell, entry);
    // The last entry takes the map with it.
    if (cell.epoch === DEAD) this.cell = undefined;
  }

  clear(): void {
    this.removeCell();
  }

  *entries(): Generator<readonly [CanonicalKey, unknown]> {
    const cell = this.find();
    if (cell === undefined) return;
    for (const entry of mapOf(cell).values()) yield [entry.key, this.read(cell, entry)];
  }

  isEmpty(): boolean {
    return this.find() === undefined;
  }

  private read(cell: Cell, entry: Cell): unknown {
    if (entry.epoch <= this.table.epochs.needed && isMutable(entry.value)) {
      this.table.releaseEntry(cell, entry);
    }
    return entry.value;
  }
}
