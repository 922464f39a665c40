import { assert } from '../kernel/assert.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { endEpoch, type Epochs, NO_CUT } from './cell-epochs.ts';
import type { CellsView, CellsWalk } from './cell-group.ts';
import type { ListCells, MapCells, RowSink, SingleCells, StateKind } from './cells.ts';
import { type CurrentKey, HeapListCells, HeapMapCells, HeapSingleCells } from './heap-cells.ts';
import { HeapPanes } from './heap-panes.ts';
import { HeapSums } from './heap-sums.ts';
import { type HeapTable, HeapTables } from './heap-table.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { StateView, StateViews } from './keyed-snapshot.ts';
import type { KeyedStore } from './keyed-state.ts';
import { type Aging, Stamped } from './stamped.ts';

/** Keyed state in memory. See `HeapTable` for how keys are found, `CellGroup` for how snapshots are cut. */
export class HeapStore implements KeyedStore {
  private readonly epochs: Epochs = { current: 0, needed: NO_CUT };
  private readonly current: CurrentKey = { key: undefined, version: 0 };
  private readonly cuts: number[] = [];
  private tables: HeapTables;
  private paned: HeapPanes[] = [];

  constructor(
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
  ) {
    this.tables = new HeapTables(range, maxParallelism, this.epochs);
  }

  select(key: CanonicalKey): void {
    const { current } = this;
    current.key = key;
    current.version++;
  }

  declare(
    name: string,
    kind: StateKind,
    aging: Aging | undefined,
  ): { readonly sawStamps: boolean; readonly sawUnstamped: boolean } {
    const table = this.tables.table(name, kind);
    table.aging = aging;
    return table;
  }

  single(name: string): SingleCells {
    return new HeapSingleCells(this.tableOf(name), this.current);
  }

  sums(name: string, field: string | number): HeapSums {
    return new HeapSums(this.tableOf(name), this.current, field);
  }

  panes(name: string): HeapPanes {
    const panes = new HeapPanes(name, this.range, this.maxParallelism, this.epochs, this.current);
    const restored = this.tables.take(name, 'map');
    if (restored !== undefined) panes.adopt(restored);
    this.paned.push(panes);
    return panes;
  }

  list(name: string): ListCells {
    return new HeapListCells(this.tableOf(name), this.current);
  }

  map(name: string): MapCells {
    return new HeapMapCells(this.tableOf(name), this.current);
  }

  keys(name: string): Iterable<CanonicalKey> {
    return this.tables.get(name)?.keys() ?? [];
  }

  *values(name: string): Generator<unknown> {
    for (const [, value] of this.tables.get(name)?.rows() ?? []) yield value;
  }

  open(name: string, kind: StateKind, keyGroup: number): RowSink & { end(): void } {
    return new RestoredRows(this.tables.table(name, kind), keyGroup - this.range.first);
  }

  restored(): number {
    return endEpoch(this.epochs);
  }

  cut(): { readonly cut: number; readonly views: StateViews } {
    const cut = endEpoch(this.epochs);
    const tables = this.tables.all();
    const paned = [...this.paned];
    const panes = paned.flatMap((each) => each.tables());
    this.cuts.push(cut);
    this.epochs.needed = cut;
    const groups = Array.from({ length: this.range.last - this.range.first + 1 }, (_, group) => [
      ...tables.flatMap((table) => fixGroup(table, group, cut)),
      ...panes.flatMap(({ table, time }) => fixGroup(table, group, cut, time)),
    ]);
    const close = () => {
      for (const group of groups) for (const view of group) view.drop();
      const at = this.cuts.indexOf(cut);
      if (at >= 0) this.cuts.splice(at, 1);
      this.epochs.needed = this.cuts.reduce((newest, one) => Math.max(newest, one), NO_CUT);
    };
    const removedSince = (group: number, since: number) =>
      tables.some((table) => table.groups[group]?.removedSince(since) === true) ||
      paned.some((each) => each.droppedSince(group, since));
    return { cut, views: { groups, removedSince, close } };
  }

  get size(): number {
    let { size } = this.tables;
    for (const panes of this.paned) size += panes.size;
    return size;
  }

  get estimatedBytes(): number {
    let bytes = this.tables.estimatedBytes;
    for (const panes of this.paned) bytes += panes.estimatedBytes;
    return bytes;
  }

  dispose(): void {
    // Let go of, not cleared: a snapshot of a task that has just ended may still be walking the cells.
    this.tables = new HeapTables(this.range, this.maxParallelism, this.epochs);
    this.paned = [];
    this.current.key = undefined;
    this.current.version++;
  }

  private tableOf(name: string): HeapTable {
    const table = this.tables.get(name);
    assert(table !== undefined, 'a state is declared before it is used');
    return table;
  }
}

/** `time`: of a pane, whose rows are entries of maps. */
function fixGroup(table: HeapTable, index: number, cut: number, time?: number): StateView[] {
  const group = table.groups[index];
  const view = group?.fix(cut, table.expiry());
  return group === undefined || view === undefined ? [] : [new HeapStateView(table, index, view, time)];
}

class HeapStateView implements StateView {
  readonly name: string;
  readonly kind: StateKind;
  private readonly looked = { at: 0, slotAt: 0 };
  private readonly walk: CellsWalk;

  constructor(
    private readonly table: HeapTable,
    private readonly index: number,
    private readonly view: CellsView,
    private readonly time: number | undefined,
  ) {
    this.name = table.name;
    this.kind = time === undefined ? table.kind : 'map';
    this.walk = { view };
  }

  changedSince(cut: number, cellsMax: number): boolean | undefined {
    return this.group.changedSince(cut, this.looked, cellsMax);
  }

  visit(rowsMax: number, sink: RowSink): boolean {
    const finished = this.group.visit(this.walk, rowsMax, this.time === undefined ? sink : entriesAt(this.time, sink));
    // In the same turn as the last cell: a change from here on must not be saved for a view that is complete.
    if (finished) this.drop();
    return finished;
  }

  drop(): void {
    this.group.drop(this.view);
  }

  private get group() {
    const group = this.table.groups[this.index];
    assert(group !== undefined, 'a view is of an owned key group');
    return group;
  }
}

/** Takes the rows of a pane as what they are in snapshots. */
function entriesAt(time: number, sink: RowSink): RowSink {
  return {
    single: (key, value) => sink.mapEntry(key, time, value),
    listStart: (key) => sink.listStart(key),
    listItem: (item) => sink.listItem(item),
    listEnd: () => sink.listEnd(),
    mapEntry: (key, mapKey, value) => sink.mapEntry(key, mapKey, value),
  };
}

class RestoredRows implements RowSink {
  private list: { readonly key: CanonicalKey; readonly items: unknown[] } | undefined;

  constructor(
    private readonly table: HeapTable,
    private readonly group: number,
  ) {}

  single(key: CanonicalKey, value: unknown): void {
    this.note(value);
    this.table.insertInto(this.group, key, value);
  }

  listStart(key: CanonicalKey): void {
    this.list = { key, items: [] };
  }

  listItem(item: unknown): void {
    this.note(item);
    this.list?.items.push(item);
  }

  listEnd(): void {
    assert(this.list !== undefined, 'a list has a start before its end');
    const { key, items } = this.list;
    // All of it had expired when it was written.
    if (items.length === 0) return;
    this.table.insertInto(this.group, key, items);
    for (const item of items) this.table.added(undefined, item);
  }

  mapEntry(key: CanonicalKey, mapKey: CanonicalKey, value: unknown): void {
    this.note(value);
    const cell = this.table.find(key) ?? this.table.insertInto(this.group, key, new Map());
    this.table.insertEntry(cell, mapKey, value);
  }

  end(): void {
    // Every row is where it belongs already.
  }

  private note(value: unknown): void {
    if (value instanceof Stamped) this.table.sawStamps = true;
    else this.table.sawUnstamped = true;
  }
}
