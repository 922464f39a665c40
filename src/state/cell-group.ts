import { assert } from '../kernel/assert.ts';
import type { CellLayout, RowSink } from './cells.ts';
import { changedAfter, DEAD, type Epochs, hiddenFrom, NO_CUT } from './cell-epochs.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { SlotKey } from './key-slots.ts';
import { agedRow, EXPIRED, type Expiry } from './stamped.ts';
import type { SumColumn } from './sum-column.ts';

/**
 * The cells of one state in one key group, with copy-on-write by epoch.
 *
 * A snapshot fixes a *cut*: the epoch that ends with it. Nothing is copied then; each (state, key group)
 * only learns that a view of that cut is pending. From there on, and until the view has been written:
 *
 *   E1. A cell whose epoch is at most the cut holds the value as of the cut; a cell with a later
 *       epoch is not part of the view.
 *   E2. Whoever changes or removes a cell that a pending view still needs first puts its value into the
 *       view's `saved` (once: the change gives the cell a later epoch).
 *   E3. A value that the user may mutate in place is handed out, while a view needs it, as a copy that
 *       has become the live value; so user code that mutates what it read cannot reach into a view.
 *   E4. A view's content is the cells of E1 plus `saved`. Writing it may be interrupted at any cell:
 *       a cell once written gets an epoch after the cut, so that E2 does not save it again.
 *
 * A cell once written gets an epoch after the cut, but has not changed by that. Incremental snapshots
 * must tell, so an epoch holds both: see {@link hiddenFrom}.
 *
 * In a map every entry is such a cell of its own, so a map may be large; a map that is cleared goes
 * into `saved` as a whole. A list only grows at its end or is replaced, so an array and a length are
 * enough to keep what it was. Running sums may lie in a column of the table instead of cells ({@link SumColumn}).
 */
export class CellGroup {
  private readonly cells: Cell[] = [];
  /** Removed ones that still take a place in `cells`. */
  private dead = 0;
  private readonly views: CellsView[] = [];
  /** Where the sums are that have no cells. */
  column: SumColumn | undefined;
  /** When a cell was last removed: what the cells that are left do not tell. */
  private removedAt = NO_CUT;

  constructor(
    private readonly layout: CellLayout,
    private readonly epochs: Epochs,
    /** Among the groups of the table. */
    private readonly index: number,
  ) {}

  get size(): number {
    return this.cells.length - this.dead + (this.column?.countIn(this.index) ?? 0);
  }

  /** Cells and removed cells, for {@link at}. */
  get length(): number {
    return this.cells.length;
  }

  at(index: number): Cell | undefined {
    return this.cells[index];
  }

  *keys(): Generator<CanonicalKey> {
    for (let i = this.cells.length - 1; i >= 0; i--) {
      const cell = this.cells[i];
      if (cell !== undefined && cell.epoch !== DEAD) yield cell.key;
    }
  }

  *rows(): Generator<readonly [CanonicalKey, unknown]> {
    for (const cell of this.cells) if (cell.epoch !== DEAD) yield [cell.key, cell.value];
  }

  add(cell: Cell): void {
    this.cells.push(cell);
  }

  /**
   * Takes a cell out. What views need of it must have been saved. `packed`: it lives on in the column.
   */
  bury(cell: Cell, why: Removal): void {
    cell.epoch = DEAD;
    cell.value = undefined;
    this.dead++;
    if (why === 'changed') this.removedAt = this.epochs.current;
    else if (why === 'packed') this.moved();
    // Not while a walk counts on where cells are.
    if (this.dead > 16 && this.dead * 2 > this.cells.length && this.views.length === 0) this.compact();
  }

  /** E2. Call it for cells that some view may need. Whether one did. */
  save(cell: Cell, value: unknown): boolean {
    let needed = false;
    for (const view of this.views) {
      if (this.layout === 'map') {
        view.keepMap(cell.key, mapOf(cell));
      } else if (cell.epoch <= view.cut) {
        needed = true;
        // The array and length of an open list are held by its walk.
        if (view.open !== cell) view.keep(cell.key, this.kept(value));
      }
    }
    return needed;
  }

  /**
   * A sum has become a cell, or the other way round: a walk that looks for changes may have passed where it is now.
   */
  moved(): void {
    if (this.views.length > 0) this.removedAt = this.epochs.current;
  }

  /** E2 for a sum in the column. */
  saveSum(key: SlotKey, stamp: number, sum: number, except?: CellsView): void {
    for (const view of this.views) {
      if (view === except || stamp > view.cut || (except !== undefined && view.cut > except.cut)) continue;
      view.savedSums ??= new Map();
      view.savedSums.set(key, sum);
    }
  }

  /** E2 for one entry of a map. */
  saveEntry(key: CanonicalKey, entry: Cell, except?: CellsView): boolean {
    let needed = false;
    for (const view of this.views) {
      if (view === except || entry.epoch > view.cut || (except !== undefined && view.cut > except.cut)) continue;
      needed = true;
      view.saved ??= new Map();
      let saved = view.saved.get(key) as Map<CanonicalKey, unknown> | undefined;
      if (saved === undefined) {
        saved = new Map();
        view.saved.set(key, saved);
      }
      saved.set(entry.key, entry.value);
    }
    return needed;
  }

  removedSince(cut: number): boolean {
    return this.removedAt > cut;
  }

  /** Whether a cell that is left may have changed after `cut`; undefined when `cellsMax` were looked at and more are left. */
  changedSince(cut: number, walk: { at: number; slotAt: number }, cellsMax: number): boolean | undefined {
    const { cells } = this;
    const end = Math.min(cells.length, walk.at + cellsMax);
    for (; walk.at < end; walk.at++) {
      const { epoch } = cells[walk.at] as Cell;
      if (epoch > cut && epoch !== DEAD && changedAfter(epoch, cut)) return true;
    }
    if (walk.at < cells.length) return undefined;
    return this.column === undefined ? false : this.column.changedSince(this.index, cut, walk, cellsMax);
  }

  /** Fixes the content as of `cut`; undefined when there is none. */
  fix(cut: number, expiry: Expiry | undefined): CellsView | undefined {
    if (this.size === 0) return undefined;
    const view = new CellsView(cut, expiry);
    this.views.push(view);
    if (this.column !== undefined) {
      view.column = this.column;
      view.slots = this.column.slots.list(this.index).length;
      this.column.slots.viewBegins(this.index);
    }
    return view;
  }

  /**
   * Hands out rows of the view, each once over all calls with the same `walk`, in no particular order,
   * about `rowsMax` of them. Returns true after the last one; the view must then be dropped before
   * anything else runs.
   */
  visit(walk: CellsWalk, rowsMax: number, sink: RowSink): boolean {
    const budget = { left: rowsMax };
    switch (this.layout) {
      case 'single':
        return this.visitSingle(walk, budget, sink);
      case 'list':
        return this.visitLists(walk, budget, sink);
      case 'map':
        return this.visitMaps(walk, budget, sink);
    }
  }

  /** Ends the view, written or not. Idempotent. */
  drop(view: CellsView): void {
    const at = this.views.indexOf(view);
    if (at < 0) return;
    this.views.splice(at, 1);
    view.saved = undefined;
    view.savedMaps = undefined;
    view.savedSums = undefined;
    view.column?.slots.viewEnds(this.index);
  }

  /**
   * Downwards: new cells are added at the end, and cells are only ever moved (by `compact`) while no
   * view is pending, so everything that the view needs and has not been met lies below `next`.
   */
  private nextCell(walk: CellsWalk): Cell | undefined {
    walk.next ??= this.cells.length;
    return walk.next === 0 ? undefined : this.cells[--walk.next];
  }

  private visitSingle(walk: CellsWalk, budget: Budget, sink: RowSink): boolean {
    const { view } = walk;
    for (let cell = this.nextCell(walk); cell !== undefined; cell = this.nextCell(walk)) {
      if (cell.epoch <= view.cut) {
        this.written(cell, view);
        single(cell.key, cell.value, view, sink);
      }
      if (--budget.left === 0) return false;
    }
    if (!this.visitSums(walk, budget, sink)) return false;
    // From here on no cell and no sum is as old as the cut, so what was saved grows no more.
    walk.saved ??= (view.saved ?? NOTHING_SAVED).entries();
    for (const [key, value] of walk.saved) {
      single(key, value, view, sink);
      if (--budget.left === 0) return false;
    }
    walk.savedSums ??= (view.savedSums ?? NO_SUMS_SAVED).entries();
    for (const [key, sum] of walk.savedSums) {
      single(key, this.column?.unpack(key, sum), view, sink);
      if (--budget.left === 0) return false;
    }
    return true;
  }

  private visitSums(walk: CellsWalk, budget: Budget, sink: RowSink): boolean {
    const { view } = walk;
    const { column } = view;
    if (column === undefined) return true;
    walk.slots ??= { left: view.slots };
    return column.visit(this.index, view.cut, walk.slots, budget, (key, stamp, sum) => {
      if (this.views.length > 1) this.saveSum(key, stamp, sum, view);
      single(key, column.unpack(key, sum), view, sink);
    });
  }

  private visitLists(walk: CellsWalk, budget: Budget, sink: RowSink): boolean {
    const { view } = walk;
    for (;;) {
      if (walk.list !== undefined) {
        if (!writeItems(walk.list, view, budget, sink)) return false;
        const { cell } = walk.list;
        // Unchanged while it was written? Then it need not be saved any more.
        if (cell !== undefined && cell.epoch <= view.cut) this.written(cell, view);
        walk.list = undefined;
        view.open = undefined;
      }
      const cell = this.nextCell(walk);
      if (cell === undefined) break;
      if (cell.epoch <= view.cut) {
        const items = cell.value as readonly unknown[];
        // `open`: who changes the cell now need not save it for us, the array and length are held here.
        view.open = cell;
        walk.list = { key: cell.key, items, length: items.length, at: -1, cell };
      }
      if (--budget.left <= 0) return false;
    }
    walk.saved ??= (view.saved ?? NOTHING_SAVED).entries();
    for (;;) {
      if (walk.list !== undefined) {
        if (!writeItems(walk.list, view, budget, sink)) return false;
        walk.list = undefined;
      }
      const next = walk.saved.next();
      if (next.done === true) return true;
      const [key, { items, length }] = next.value as [CanonicalKey, ListPrefix];
      walk.list = { key, items, length, at: -1, cell: undefined };
      if (--budget.left <= 0) return false;
    }
  }

  private visitMaps(walk: CellsWalk, budget: Budget, sink: RowSink): boolean {
    const { view } = walk;
    for (;;) {
      if (walk.map !== undefined) {
        if (!this.writeEntries(walk.map, view, budget, sink)) return false;
        walk.map = undefined;
      }
      const cell = this.nextCell(walk);
      if (cell === undefined) break;
      if (cell.epoch !== DEAD) walk.map = { key: cell.key, entries: mapOf(cell).values() };
      if (--budget.left <= 0) return false;
    }
    // Maps cleared from here on have nothing that the view needs. By index: cleared ones may still be added.
    for (;;) {
      if (walk.map !== undefined) {
        if (!this.writeEntries(walk.map, view, budget, sink)) return false;
        walk.map = undefined;
      }
      walk.savedMap ??= 0;
      const saved = view.savedMaps?.[walk.savedMap++];
      if (saved === undefined) break;
      walk.map = { key: saved[0], entries: saved[1].values() };
      if (--budget.left <= 0) return false;
    }
    walk.saved ??= (view.saved ?? NOTHING_SAVED).entries();
    for (;;) {
      if (walk.savedEntries !== undefined) {
        const { key, entries } = walk.savedEntries;
        for (const [mapKey, value] of entries) {
          entryRow(key, mapKey, value, view, sink);
          if (--budget.left <= 0) return false;
        }
        walk.savedEntries = undefined;
      }
      const next = walk.saved.next();
      if (next.done === true) return true;
      const [key, entries] = next.value as [CanonicalKey, Map<CanonicalKey, unknown>];
      walk.savedEntries = { key, entries: entries.entries() };
    }
  }

  private writeEntries(
    { key, entries }: { readonly key: CanonicalKey; readonly entries: IterableIterator<Cell> },
    view: CellsView,
    budget: Budget,
    sink: RowSink,
  ): boolean {
    for (;;) {
      const next = entries.next();
      if (next.done === true) return true;
      const entry = next.value;
      if (entry.epoch <= view.cut) {
        if (this.views.length > 1) this.saveEntry(key, entry, view);
        entry.epoch = hiddenFrom(entry.epoch, view.cut);
        entryRow(key, entry.key, entry.value, view, sink);
      }
      if (--budget.left <= 0) return false;
    }
  }

  /** E4. Raising the epoch hides the cell from older views as a change would. */
  private written(cell: Cell, view: CellsView): void {
    for (const other of this.views) {
      if (other === view || cell.epoch > other.cut || other.cut > view.cut || other.open === cell) continue;
      other.keep(cell.key, this.kept(cell.value));
    }
    cell.epoch = hiddenFrom(cell.epoch, view.cut);
  }

  /** What has to be held to have the value for ever. */
  private kept(value: unknown): unknown {
    if (this.layout !== 'list') return value;
    const items = value as readonly unknown[];
    return { items, length: items.length } satisfies ListPrefix;
  }

  private compact(): void {
    let kept = 0;
    for (const cell of this.cells) if (cell.epoch !== DEAD) this.cells[kept++] = cell;
    this.cells.length = kept;
    this.dead = 0;
  }
}

function single(key: CanonicalKey, value: unknown, view: CellsView, sink: RowSink): void {
  const row = agedRow(value, view.expiry);
  if (row !== EXPIRED) sink.single(key, row);
}

function entryRow(key: CanonicalKey, mapKey: CanonicalKey, value: unknown, view: CellsView, sink: RowSink): void {
  const row = agedRow(value, view.expiry);
  if (row !== EXPIRED) sink.mapEntry(key, mapKey, row);
}

/** False when the budget ended first. */
function writeItems(list: OpenList, view: CellsView, budget: Budget, sink: RowSink): boolean {
  if (list.at < 0) {
    sink.listStart(list.key);
    list.at = 0;
  }
  while (list.at < list.length) {
    const item = agedRow(list.items[list.at++], view.expiry);
    if (item !== EXPIRED) sink.listItem(item);
    if (--budget.left <= 0) return false;
  }
  sink.listEnd();
  return true;
}

interface Budget {
  left: number;
}

/** `expired`: a snapshot that still has it will find that by itself. */
export type Removal = 'changed' | 'expired' | 'packed';

/** Read and changed through its table only. */
export class Cell {
  constructor(
    /** Of a map's entry: the map's key. */
    readonly key: CanonicalKey,
    /** For a list its array, for a map the cells of its entries. */
    public value: unknown,
    /** The epoch in which the value became what it is. Of a map itself: in which it last changed. */
    public epoch: number,
  ) {}
}

export type MapEntries = Map<CanonicalKey, Cell>;

export function mapOf(cell: Cell): MapEntries {
  assert(cell.value instanceof Map, 'a map state holds maps');
  return cell.value as MapEntries;
}

/** What a list was: it may have grown since. */
interface ListPrefix {
  readonly items: readonly unknown[];
  readonly length: number;
}

/** A pending view of one cut. Opaque to all but {@link CellGroup}. */
export class CellsView {
  saved: Map<CanonicalKey, unknown> | undefined;
  savedMaps: (readonly [CanonicalKey, MapEntries])[] | undefined;
  savedSums: Map<SlotKey, number> | undefined;
  /** The column of then, and how many slots the group had: later ones, even of the same number, are not of this view. */
  column: SumColumn | undefined;
  slots = 0;
  /** The list that is being written, with its array and length held by the walk. */
  open: Cell | undefined;

  constructor(
    readonly cut: number,
    /** Undefined: nothing expires. */
    readonly expiry: Expiry | undefined,
  ) {}

  keep(key: CanonicalKey, value: unknown): void {
    this.saved ??= new Map();
    this.saved.set(key, value);
  }

  keepMap(key: CanonicalKey, entries: MapEntries): void {
    this.savedMaps ??= [];
    this.savedMaps.push([key, entries]);
  }
}

interface OpenList extends ListPrefix {
  readonly key: CanonicalKey;
  /** The next item; -1 before the start. */
  at: number;
  /** Undefined for a saved one. */
  readonly cell: Cell | undefined;
}

/** How far the writing of a view has come. */
export interface CellsWalk {
  readonly view: CellsView;
  next?: number;
  slots?: { left: number };
  saved?: IterableIterator<[CanonicalKey, unknown]>;
  savedSums?: IterableIterator<[SlotKey, number]>;
  list?: OpenList | undefined;
  map?: { readonly key: CanonicalKey; readonly entries: IterableIterator<Cell> } | undefined;
  savedMap?: number;
  savedEntries?:
    | { readonly key: CanonicalKey; readonly entries: IterableIterator<[CanonicalKey, unknown]> }
    | undefined;
}

const NOTHING_SAVED = new Map<CanonicalKey, unknown>();
const NO_SUMS_SAVED = new Map<SlotKey, number>();
