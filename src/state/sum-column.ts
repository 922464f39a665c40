import { changedAfter, type Epochs, hiddenFrom } from './cell-epochs.ts';
import { CHUNK_BITS, CHUNK_SLOTS, type KeySlots, type SlotKey } from './key-slots.ts';

/** Makes of a key and a sum the record that stands for both. */
export type Unpack = (key: SlotKey, sum: number) => unknown;

/** What a sum costs besides its key. */
const SUM_BYTES = 12;
/** The stamp of a slot without a sum: before all epochs, so that the one comparison of E2 finds it as well. */
const NONE = -2;

/**
 * The sums of one state by slot, with the epochs in which they became what they are; as cells, with the same
 * rules (see `CellGroup`), but in typed arrays: a sum is changed without a step to an object.
 *
 *   S1. A key has a cell or a sum, never both; so a sum that becomes a cell keeps its epoch, and the other way round.
 *   S2. A sum that a pending view needs is put into the view before it changes or goes (E2).
 */
export class SumColumn {
  private readonly chunks: (SumChunk | undefined)[] = [];
  /** Sums by key group. */
  private readonly counts: Int32Array;
  private sums = 0;

  constructor(
    readonly slots: KeySlots,
    groups: number,
    private readonly epochs: Epochs,
    /** Puts a sum into those pending views of the group that need it. */
    private readonly save: (group: number, key: SlotKey, stamp: number, sum: number) => void,
    readonly unpack: Unpack,
  ) {
    this.counts = new Int32Array(groups);
  }

  get size(): number {
    return this.sums;
  }

  get estimatedBytes(): number {
    return this.sums * SUM_BYTES;
  }

  countIn(group: number): number {
    return this.counts[group] as number;
  }

  /** The new sum; undefined when the key has none. */
  add(key: SlotKey, amount: number): number | undefined {
    const slot = this.slots.find(key);
    if (slot === undefined) return undefined;
    const chunk = this.chunks[slot >>> CHUNK_BITS];
    if (chunk === undefined) return undefined;
    const at = slot & (CHUNK_SLOTS - 1);
    const { stamps, sums } = chunk;
    const { epochs } = this;
    if ((stamps[at] as number) <= epochs.needed && !this.touch(slot, stamps[at] as number, sums[at] as number)) {
      return undefined;
    }
    stamps[at] = epochs.current;
    const sum = (sums[at] as number) + amount;
    sums[at] = sum;
    return sum;
  }

  has(key: SlotKey): boolean {
    const slot = this.slots.find(key);
    if (slot === undefined) return false;
    const chunk = this.chunks[slot >>> CHUNK_BITS];
    return chunk !== undefined && chunk.stamps[slot & (CHUNK_SLOTS - 1)] !== NONE;
  }

  /** The first sum of a key that has neither sum nor cell. `stamp`: the epoch of the cell that it was. */
  put(key: SlotKey, sum: number, stamp: number = this.epochs.current): void {
    const slot = this.slots.slotOf(key);
    const index = slot >>> CHUNK_BITS;
    while (this.chunks.length <= index) this.chunks.push(undefined);
    const chunk = this.chunks[index] ?? new SumChunk();
    this.chunks[index] = chunk;
    const at = slot & (CHUNK_SLOTS - 1);
    chunk.sums[at] = sum;
    chunk.stamps[at] = stamp;
    this.slots.hold(slot);
    const group = this.slots.groupOf(slot);
    this.counts[group] = (this.counts[group] as number) + 1;
    this.sums++;
  }

  /** Takes a key's sum out, to be kept as a cell; its stamp is one that hides it from pending views. */
  take(key: SlotKey): { readonly sum: number; readonly stamp: number } | undefined {
    const slot = this.slots.find(key);
    const chunk = slot === undefined ? undefined : this.chunks[slot >>> CHUNK_BITS];
    if (slot === undefined || chunk === undefined) return undefined;
    const at = slot & (CHUNK_SLOTS - 1);
    const stamp = chunk.stamps[at] as number;
    const sum = chunk.sums[at] as number;
    if (stamp === NONE) return undefined;
    const { needed } = this.epochs;
    if (stamp <= needed) this.touch(slot, stamp, sum);
    chunk.stamps[at] = NONE;
    const group = this.slots.groupOf(slot);
    this.counts[group] = (this.counts[group] as number) - 1;
    this.sums--;
    this.slots.release(slot);
    return { sum, stamp: stamp <= needed ? hiddenFrom(stamp, needed) : stamp };
  }

  /** The column goes with all it holds. What views need stays: they have the column, and K2 keeps the keys. */
  retire(): void {
    const { chunks, slots } = this;
    for (let index = 0; index < chunks.length; index++) {
      const stamps = chunks[index]?.stamps;
      if (stamps === undefined) continue;
      for (let at = 0; at < CHUNK_SLOTS; at++) {
        if (stamps[at] !== NONE) slots.release((index << CHUNK_BITS) + at);
      }
    }
    slots.columnGone();
  }

  /** Keys and sums in no particular order. */
  *entries(): Generator<readonly [SlotKey, number]> {
    const { chunks, slots } = this;
    for (let index = 0; index < chunks.length; index++) {
      const chunk = chunks[index];
      if (chunk === undefined) continue;
      for (let at = 0; at < CHUNK_SLOTS; at++) {
        if (chunk.stamps[at] !== NONE) yield [slots.keyOf((index << CHUNK_BITS) + at), chunk.sums[at] as number];
      }
    }
  }

  /** As `CellGroup.changedSince`. */
  changedSince(group: number, cut: number, walk: { slotAt: number }, looksMax: number): boolean | undefined {
    const list = this.slots.list(group);
    const end = Math.min(list.length, walk.slotAt + looksMax);
    for (; walk.slotAt < end; walk.slotAt++) {
      const stamp = this.stampOf(list[walk.slotAt] as number);
      if (stamp > cut && changedAfter(stamp, cut)) return true;
    }
    return walk.slotAt < list.length ? undefined : false;
  }

  /**
   * Hands out the sums that a view needs, from the last slot of its time downwards, and hides them from it (E4).
   * False when the budget ended first.
   */
  visit(
    group: number,
    cut: number,
    walk: { left: number },
    budget: { left: number },
    give: (key: SlotKey, stamp: number, sum: number) => void,
  ): boolean {
    const list = this.slots.list(group);
    while (walk.left > 0) {
      const slot = list[--walk.left] as number;
      const stamp = this.stampOf(slot);
      if (stamp <= cut && stamp !== NONE) {
        const { stamps, sums } = this.chunks[slot >>> CHUNK_BITS] as SumChunk;
        const at = slot & (CHUNK_SLOTS - 1);
        stamps[at] = hiddenFrom(stamp, cut);
        give(this.slots.keyOf(slot), stamp, sums[at] as number);
      }
      if (--budget.left <= 0) return false;
    }
    return true;
  }

  private stampOf(slot: number): number {
    const chunk = this.chunks[slot >>> CHUNK_BITS];
    return chunk === undefined ? NONE : (chunk.stamps[slot & (CHUNK_SLOTS - 1)] as number);
  }

  /** S2. False when there is no sum. */
  private touch(slot: number, stamp: number, sum: number): boolean {
    if (stamp === NONE) return false;
    this.save(this.slots.groupOf(slot), this.slots.keyOf(slot), stamp, sum);
    return true;
  }
}

class SumChunk {
  readonly sums = new Float64Array(CHUNK_SLOTS);
  readonly stamps = new Int32Array(CHUNK_SLOTS).fill(NONE);
}
