import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { DEAD, type Epochs } from './cell-epochs.ts';
import { mapOf } from './cell-group.ts';
import { decodeCanonicalKey } from './decode-key.ts';
import { type CurrentKey, HeapSingleCells } from './heap-cells.ts';
import { HeapSums } from './heap-sums.ts';
import { HeapTable } from './heap-table.ts';
import { KeySlots } from './key-slots.ts';
import type { PackedSums, Pane, Panes } from './ports.ts';
import { admit } from './state-value.ts';

/**
 * A map state of key and time that is used time by time: a table for each time, so that a pane whose time has
 * come is read and let go of as a whole, without a look at its keys one by one. Keys of sums have one slot for
 * all times: what is new in a pane is usually known from another.
 *
 *   N1. In snapshots it is a map state, with the time as the map's key: every backend restores it.
 *   N2. A key group that has lost a pane has changed, though no cell that is left tells.
 */
export class HeapPanes implements Panes {
  private readonly byTime = new Map<number, HeapPane>();
  /** By key group: when it last lost a pane. N2 */
  private readonly droppedAt: Int32Array;
  private readonly slots: KeySlots;

  constructor(
    readonly name: string,
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
    private readonly epochs: Epochs,
    private readonly current: CurrentKey,
  ) {
    this.droppedAt = new Int32Array(range.last - range.first + 1).fill(-1);
    this.slots = new KeySlots(range, maxParallelism);
  }

  get size(): number {
    let size = 0;
    for (const { table } of this.byTime.values()) size += table.size;
    return size;
  }

  get estimatedBytes(): number {
    let bytes = this.slots.estimatedBytes;
    for (const { table } of this.byTime.values()) bytes += table.estimatedBytes;
    return bytes;
  }

  /** Takes over what was restored as a map state. */
  adopt(restored: HeapTable): void {
    restored.groups.forEach((group, index) => {
      for (let i = 0; i < group.length; i++) {
        const cell = group.at(i);
        if (cell === undefined || cell.epoch === DEAD) continue;
        for (const entry of mapOf(cell).values()) {
          const { table } = this.heapPane(entry.key as number);
          // As old as it was: it has not changed.
          table.insertInto(index, cell.key, entry.value).epoch = entry.epoch;
        }
      }
    });
  }

  pane(time: number): Pane {
    return this.heapPane(time);
  }

  times(): readonly number[] {
    return [...this.byTime.keys()];
  }

  drop(time: number): void {
    const pane = this.byTime.get(time);
    if (pane === undefined) return;
    this.byTime.delete(time);
    pane.table.groups.forEach((group, index) => {
      if (group.size > 0) this.droppedAt[index] = this.epochs.current;
    });
    pane.table.column?.retire();
  }

  tables(): readonly { readonly time: number; readonly table: HeapTable }[] {
    return [...this.byTime].map(([time, { table }]) => ({ time, table }));
  }

  droppedSince(group: number, cut: number): boolean {
    return (this.droppedAt[group] as number) > cut;
  }

  private heapPane(time: number): HeapPane {
    let pane = this.byTime.get(time);
    if (pane === undefined) {
      const { name, range, maxParallelism, epochs, current, slots } = this;
      pane = new HeapPane(new HeapTable(name, 'value', range, maxParallelism, epochs, slots), current);
      this.byTime.set(time, pane);
    }
    return pane;
  }
}

class HeapPane extends HeapSingleCells implements Pane {
  constructor(
    override readonly table: HeapTable,
    private readonly currentKey: CurrentKey,
  ) {
    super(table, currentKey);
  }

  sums(field: string | number): PackedSums {
    return new HeapSums(this.table, this.currentKey, field);
  }

  addTo(field: string | number, amount: number): boolean {
    const cell = this.find();
    if (cell === undefined) return false;
    const record = this.value() as Record<string | number, unknown>;
    const current = record[field];
    if (typeof current !== 'number') return false;
    record[field] = current + amount;
    cell.epoch = this.table.epochs.current;
    return true;
  }

  append(item: unknown): void {
    const items = this.value() as unknown[] | undefined;
    const cell = this.find();
    if (items === undefined || cell === undefined) {
      this.set([admit(item)]);
      return;
    }
    // `value` has given the cell's own, which no view holds any more: it may be changed in place.
    items.push(admit(item));
    cell.epoch = this.table.epochs.current;
  }

  *entries(): Generator<readonly [unknown, unknown]> {
    for (const [key, value] of this.table.rows()) yield [decodeCanonicalKey(key), value];
  }
}
