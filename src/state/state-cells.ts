import type { CanonicalKey } from './key-group-hash.ts';
import { cloneValue, isMutable, ownString } from './state-value.ts';

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
 *       a cell once written gets the epoch after the cut, so that E2 does not save it again.
 */
export class StateCells {
  private readonly cells = new Map<CanonicalKey, Cell>();
  private readonly views: CellsView[] = [];
  /** The newest cut of a pending view: one comparison tells the usual case, that no view needs the cell. */
  private neededCut = NO_CUT;

  constructor(private readonly epochs: Epochs) {}

  get size(): number {
    return this.cells.size;
  }

  find(key: CanonicalKey): Cell | undefined {
    return this.cells.get(key);
  }

  /** The value of a cell that `find` gave; the caller may change it in place (E3). */
  read(key: CanonicalKey, cell: Cell): unknown {
    if (cell.epoch <= this.neededCut && isMutable(cell.value)) {
      this.save(key, cell);
      cell.value = cloneValue(cell.value);
      cell.epoch = this.epochs.current;
    }
    return cell.value;
  }

  insert(key: CanonicalKey, value: unknown): Cell {
    const cell: Cell = { value, epoch: this.epochs.current };
    this.cells.set(typeof key === 'string' ? ownString(key) : key, cell);
    return cell;
  }

  write(key: CanonicalKey, cell: Cell, value: unknown): void {
    if (cell.epoch <= this.neededCut) this.save(key, cell);
    cell.value = value;
    cell.epoch = this.epochs.current;
  }

  remove(key: CanonicalKey, cell: Cell): void {
    if (cell.epoch <= this.neededCut) this.save(key, cell);
    this.cells.delete(key);
  }

  /** Shows every value as it is now. */
  forEach(visit: (value: unknown) => void): void {
    for (const { value } of this.cells.values()) visit(value);
  }

  /** Fixes the content as of `cut`; undefined when there is none. */
  fix(cut: number): CellsView | undefined {
    if (this.cells.size === 0) return undefined;
    const view: CellsView = { cut, saved: undefined };
    this.views.push(view);
    this.neededCut = cut;
    return view;
  }

  /**
   * Hands out entries of the view, each once over all calls with the same `walk`, in no particular
   * order. Returns true after the last one; the view must then be dropped before anything else runs.
   */
  visit(walk: CellsWalk, entriesMax: number, visitor: (key: CanonicalKey, value: unknown) => void): boolean {
    const { view } = walk;
    let left = entriesMax;
    // A Map's iterator stays good while the Map changes: entries added on the way are met too, and skipped by E1.
    walk.cells ??= this.cells.entries();
    for (const [key, cell] of walk.cells) {
      if (cell.epoch <= view.cut) {
        // Raising the epoch hides the cell from older views as a change would.
        if (this.views.length > 1) this.save(key, cell, view);
        cell.epoch = view.cut + 1;
        visitor(key, cell.value);
      }
      if (--left === 0) return false;
    }
    // From here on no cell is as old as the cut, so `saved` grows no more.
    walk.saved ??= view.saved?.entries() ?? NOTHING_SAVED.entries();
    for (const [key, value] of walk.saved) {
      visitor(key, value);
      if (--left === 0) return false;
    }
    return true;
  }

  /** Ends the view, written or not. Idempotent. */
  drop(view: CellsView): void {
    const at = this.views.indexOf(view);
    if (at < 0) return;
    this.views.splice(at, 1);
    view.saved = undefined;
    this.neededCut = this.views.reduce((newest, { cut }) => Math.max(newest, cut), NO_CUT);
  }

  private save(key: CanonicalKey, cell: Cell, except?: CellsView): void {
    for (const view of this.views) {
      if (view === except || cell.epoch > view.cut || (except !== undefined && view.cut > except.cut)) continue;
      view.saved ??= new Map();
      view.saved.set(key, cell.value);
    }
  }
}

/** Read and changed through its {@link StateCells} only. */
export interface Cell {
  value: unknown;
  /** The epoch in which the value became what it is. */
  epoch: number;
}

/** A pending view of one cut. Opaque to all but {@link StateCells}. */
export interface CellsView {
  readonly cut: number;
  saved: Map<CanonicalKey, unknown> | undefined;
}

/** How far the writing of a view has come. */
export interface CellsWalk {
  readonly view: CellsView;
  cells?: IterableIterator<[CanonicalKey, Cell]>;
  saved?: IterableIterator<[CanonicalKey, unknown]>;
}

const NOTHING_SAVED = new Map<CanonicalKey, unknown>();

/** The counter that all cells of a backend share. */
export interface Epochs {
  current: number;
}

const NO_CUT = -1;
