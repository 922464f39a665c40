import { assert } from '../kernel/assert.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { type CellLayout, layoutOf, type StateKind } from './cells.ts';
import { DEAD, type Epochs, hiddenFrom } from './cell-epochs.ts';
import { Cell, CellGroup, mapOf, type Removal } from './cell-group.ts';
import { type CanonicalKey, keyGroupForCanonical } from './key-group-hash.ts';
import { KeyIndex } from './key-index.ts';
import { KeySlots, type SlotKey } from './key-slots.ts';
import { SizeEstimate } from './size-estimate.ts';
import { type Aging, type Expiry, isExpired } from './stamped.ts';
import { cloneValue, ownString } from './state-value.ts';
import { SumColumn, type Unpack } from './sum-column.ts';

/** What a key costs besides its text and value: its cell, its place in a Map and in its group. */
const CELL_OVERHEAD_BYTES = 110;
/** An array that has grown: V8 makes room for 17 items at first. */
const ARRAY_BYTES = 168;
/** What a unit costs besides its value. */
const UNIT_OVERHEAD_BYTES = { single: 0, list: 10, map: 90 } as const;

/**
 * One named state in memory.
 *
 * A key is found through an index of Maps, and its cell is also listed in its key group, where snapshots find it.
 * So the key group, whose hash costs more than the look-up, is only needed when a key is new.
 */
export class HeapTable {
  readonly layout: CellLayout;
  /** By key group, counted from the first of the range. */
  readonly groups: readonly CellGroup[];
  /** How long values live; known once the state is asked for. Undefined: for ever. */
  aging: Aging | undefined;
  /** Of running sums: those that are numbers. See `HeapSums`. */
  column: SumColumn | undefined;
  /** Tells the form of packed records from others. */
  packedForm: string | undefined;
  /** Whether values with a stamp were restored, and without. */
  sawStamps = false;
  sawUnstamped = false;
  private readonly index = new KeyIndex<Cell>();
  /** Units are what grows: the items of lists, the entries of maps, else the cells themselves. */
  units = 0;
  private cells = 0;
  private readonly sizes = new SizeEstimate();
  private sweeping: Iterator<void> | undefined;

  constructor(
    readonly name: string,
    readonly kind: StateKind,
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
    readonly epochs: Epochs,
    /** Those that other tables use as well. */
    private readonly sharedSlots?: KeySlots,
  ) {
    this.layout = layoutOf(kind);
    this.groups = Array.from({ length: range.last - range.first + 1 }, (_, i) => new CellGroup(this.layout, epochs, i));
  }

  /** Keys. */
  get size(): number {
    return this.cells + (this.column?.size ?? 0);
  }

  /** Roughly: from the number of keys and a sample of the values. */
  get estimatedBytes(): number {
    const { column, sizes } = this;
    const perCell = CELL_OVERHEAD_BYTES + (this.layout === 'list' ? ARRAY_BYTES : 0);
    const cells = this.cells * perCell + this.units * (UNIT_OVERHEAD_BYTES[this.layout] + sizes.meanBytes);
    if (column === undefined) return cells;
    const keys = this.sharedSlots === undefined ? column.slots.estimatedBytes : 0;
    return cells + keys + column.estimatedBytes;
  }

  expiry(): Expiry | undefined {
    return this.aging?.expiry();
  }

  /** From now on there are sums that are numbers. Once. */
  packAs(form: string, unpack: Unpack): SumColumn {
    const slots = this.sharedSlots ?? new KeySlots(this.range, this.maxParallelism);
    const save = (group: number, key: SlotKey, stamp: number, sum: number) =>
      (this.groups[group] as CellGroup).saveSum(key, stamp, sum);
    this.packedForm = form;
    this.column = new SumColumn(slots, this.groups.length, this.epochs, save, unpack);
    for (const group of this.groups) group.column = this.column;
    return this.column;
  }

  /** A sum becomes a cell, for whoever wants to do something else with it. */
  find(key: CanonicalKey): Cell | undefined {
    const cell = this.index.get(key);
    return cell !== undefined || this.column === undefined ? cell : this.unpackedCell(this.column, key);
  }

  /** The cell, if there is one, whatever is in the column. */
  findCell(key: CanonicalKey): Cell | undefined {
    return this.cells === 0 ? undefined : this.index.get(key);
  }

  /** S1: `sum` says all that the cell does. */
  packCell(column: SumColumn, cell: Cell, sum: number): void {
    const { key, epoch } = cell;
    const { needed } = this.epochs;
    this.remove(cell, 'packed');
    column.put(key as SlotKey, sum, epoch <= needed ? hiddenFrom(epoch, needed) : epoch);
  }

  private unpackedCell(column: SumColumn, key: CanonicalKey): Cell | undefined {
    if (typeof key !== 'string' && typeof key !== 'number') return undefined;
    const taken = column.take(key);
    if (taken === undefined) return undefined;
    const group = keyGroupForCanonical(key, this.maxParallelism) - this.range.first;
    const cell = this.insertInto(group, key, column.unpack(key, taken.sum));
    cell.epoch = taken.stamp;
    this.groups[group]?.moved();
    return cell;
  }

  insert(key: CanonicalKey, value: unknown): Cell {
    return this.insertInto(keyGroupForCanonical(key, this.maxParallelism) - this.range.first, key, value);
  }

  insertInto(group: number, key: CanonicalKey, value: unknown): Cell {
    const cells = this.groups[group];
    assert(cells !== undefined, 'a record reaches the owner of its key group');
    const owned = typeof key === 'string' ? ownString(key) : key;
    const cell = new Cell(owned, value, this.epochs.current);
    this.index.add(owned, cell);
    cells.add(cell);
    this.cells++;
    if (this.layout === 'single') this.added(owned, value);
    return cell;
  }

  /** Counts a new unit; the expired pay for the new. */
  added(key: CanonicalKey | undefined, value: unknown): void {
    this.units++;
    this.sample(key, value);
    if (this.aging !== undefined) this.sweep();
  }

  /** Must come before a change of the cell's value. */
  touch(cell: Cell): void {
    if (cell.epoch <= this.epochs.needed) this.groupOf(cell).save(cell, cell.value);
    cell.epoch = this.epochs.current;
  }

  remove(cell: Cell, why: Removal = 'changed'): void {
    this.removeFrom(this.groupOf(cell), cell, why);
  }

  insertEntry(cell: Cell, mapKey: CanonicalKey, value: unknown): void {
    const owned = typeof mapKey === 'string' ? ownString(mapKey) : mapKey;
    mapOf(cell).set(owned, new Cell(owned, value, this.epochs.current));
    cell.epoch = this.epochs.current;
    this.added(owned, value);
  }

  /** E3: makes the value one that no view sees, and gives it. */
  release(cell: Cell): unknown {
    if (this.groupOf(cell).save(cell, cell.value)) cell.value = cloneValue(cell.value);
    // Seen by no view of today, and not changed either.
    cell.epoch = hiddenFrom(cell.epoch, this.epochs.needed);
    return cell.value;
  }

  /** E3 for an entry of a map. */
  releaseEntry(cell: Cell, entry: Cell): void {
    if (this.groupOf(cell).saveEntry(cell.key, entry)) entry.value = cloneValue(entry.value);
    entry.epoch = hiddenFrom(entry.epoch, this.epochs.needed);
  }

  /** Must come before a change of the entry's value. */
  touchEntry(cell: Cell, entry: Cell): void {
    if (entry.epoch <= this.epochs.needed) this.groupOf(cell).saveEntry(cell.key, entry);
    entry.epoch = this.epochs.current;
    cell.epoch = this.epochs.current;
  }

  removeEntry(cell: Cell, entry: Cell, why: 'changed' | 'expired' = 'changed'): void {
    const entries = mapOf(cell);
    if (entry.epoch <= this.epochs.needed) this.groupOf(cell).saveEntry(cell.key, entry);
    entries.delete(entry.key);
    this.units--;
    if (why === 'changed') cell.epoch = this.epochs.current;
    if (entries.size === 0) this.remove(cell, why);
  }

  private groupOf(cell: Cell): CellGroup {
    const group = this.groups[keyGroupForCanonical(cell.key, this.maxParallelism) - this.range.first];
    assert(group !== undefined, 'a cell lies in an owned key group');
    return group;
  }

  /** Now and then a value's size is taken, so that the estimate follows it. */
  sample(key: CanonicalKey | undefined, value: unknown): void {
    this.sizes.sample(key, value);
  }

  /**
   * Looks at two units more, and lets go of those that have expired. Called for each new one, so that
   * keys that nobody asks for again cannot pile up: a whole round takes half as many new ones as there are.
   */
  private sweep(): void {
    this.sweeping ??= this.sweepRounds();
    this.sweeping.next();
    this.sweeping.next();
  }

  private *sweepRounds(): Generator<void, never> {
    for (;;) {
      yield;
      for (const group of this.groups) {
        for (let i = 0; i < group.length; i++) {
          const cell = group.at(i);
          if (cell === undefined || cell.epoch === DEAD) continue;
          if (this.layout === 'map') yield* this.sweepMap(cell);
          else if (this.layout === 'single' ? isExpired(cell.value, this.expiry()) : this.allExpired(cell))
            this.removeFrom(group, cell, 'expired');
          yield;
        }
      }
    }
  }

  private allExpired(cell: Cell): boolean {
    const items = cell.value as readonly unknown[];
    // The newest is last, unless reading refreshes: either way one that lives keeps the list.
    const expiry = this.expiry();
    return isExpired(items.at(-1), expiry) && items.every((item) => isExpired(item, expiry));
  }

  private *sweepMap(cell: Cell): Generator<void> {
    for (const entry of mapOf(cell).values()) {
      if (isExpired(entry.value, this.expiry())) this.removeEntry(cell, entry, 'expired');
      if (cell.epoch === DEAD) return;
      yield;
    }
  }

  /** In no particular order. */
  *keys(): Generator<CanonicalKey> {
    for (const group of this.groups) yield* group.keys();
    for (const [key] of this.column?.entries() ?? []) yield key;
  }

  /** Keys and values of a single-valued state, in no particular order. */
  *rows(): Generator<readonly [CanonicalKey, unknown]> {
    for (const group of this.groups) yield* group.rows();
    const { column } = this;
    if (column !== undefined) for (const [key, sum] of column.entries()) yield [key, column.unpack(key, sum)];
  }

  private removeFrom(group: CellGroup, cell: Cell, why: Removal): void {
    if (cell.epoch <= this.epochs.needed || this.layout === 'map') group.save(cell, cell.value);
    this.index.delete(cell.key);
    if (this.layout === 'single') this.units--;
    else if (this.layout === 'list') this.units -= (cell.value as readonly unknown[]).length;
    else this.units -= mapOf(cell).size;
    group.bury(cell, why);
    this.cells--;
  }
}

/** All states of an operator by name; also those restored that no function has asked for yet. */
export class HeapTables {
  private readonly tables = new Map<string, HeapTable>();

  constructor(
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
    readonly epochs: Epochs,
  ) {}

  /** The state of that name, made if need be. */
  table(name: string, kind: StateKind): HeapTable {
    let table = this.tables.get(name);
    if (table === undefined) {
      table = new HeapTable(name, kind, this.range, this.maxParallelism, this.epochs);
      this.tables.set(name, table);
    }
    if (table.kind !== kind) throw otherKind(name, table.kind, kind);
    return table;
  }

  /** Removes and gives the state of that name. */
  take(name: string, kind: StateKind): HeapTable | undefined {
    const table = this.tables.get(name);
    if (table !== undefined && table.kind !== kind) throw otherKind(name, table.kind, kind);
    this.tables.delete(name);
    return table;
  }

  get(name: string): HeapTable | undefined {
    return this.tables.get(name);
  }

  all(): readonly HeapTable[] {
    return [...this.tables.values()];
  }

  get size(): number {
    let size = 0;
    for (const table of this.tables.values()) size += table.size;
    return size;
  }

  get estimatedBytes(): number {
    let bytes = 0;
    for (const table of this.tables.values()) bytes += table.estimatedBytes;
    return bytes;
  }
}

export function otherKind(name: string, known: string, asked: string): MillraceError {
  return new MillraceError('CONFLICT', `state '${name}' is ${known} state and cannot be used as ${asked} state`, {
    hint: 'give the new state another name, or another uid to its operator',
  });
}
