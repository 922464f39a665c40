import { assert } from '../kernel/assert.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { keyGroupForCanonical } from './key-group-hash.ts';
import { KeyIndex } from './key-index.ts';
import { keyBytes, ownString } from './state-value.ts';

/** Strings and numbers as their own canonical form; others never get a slot. */
export type SlotKey = string | number;

/** Slots are kept by this many, here and in columns, so that nothing large is ever copied to grow. A power of two. */
export const CHUNK_BITS = 10;
export const CHUNK_SLOTS = 1 << CHUNK_BITS;

/** What a key costs besides its text: its entry in a Map, its places in a chunk and in its key group. */
const KEY_BYTES = 64;
/** Slots without a holder that nobody minds, and slots looked at for each new key and with each column that goes. */
const IDLE_MAX = 1_024;
const LOOKS_A_KEY = 4;
const LOOKS_A_COLUMN = 8_192;

/**
 * A number for each key, by which columns of numbers find what they hold of it: one look-up in a Map for all of
 * them, and no object for a key.
 *
 *   K1. A slot is its key's until the key is let go of, and a key has one slot at most.
 *   K2. A key that a column holds, or that a pending view may meet, is not let go of.
 *   K3. Keys that nobody holds are soon fewer than those that are held, or than {@link IDLE_MAX}.
 */
export class KeySlots {
  private index = new KeyIndex<number>();
  private chunks: KeyChunk[] = [];
  private free: number[] = [];
  /** Of each key group, counted from the first of the range. New ones are added at the end. */
  private lists: number[][];
  /** Views by key group: K2. */
  private readonly viewed: Int32Array;
  private views = 0;
  private slots = 0;
  private keys = 0;
  private idle = 0;
  private textBytes = 0;
  private readonly hand = { group: 0, at: 0 };

  constructor(
    private readonly range: KeyGroupRange,
    private readonly maxParallelism: number,
  ) {
    this.lists = emptyLists(range);
    this.viewed = new Int32Array(this.lists.length);
  }

  get estimatedBytes(): number {
    return this.keys * KEY_BYTES + this.textBytes;
  }

  find(key: SlotKey): number | undefined {
    return this.index.get(key);
  }

  /** The key's slot, made if need be. Whoever puts something there must {@link hold} it before anything else happens. */
  slotOf(key: SlotKey): number {
    const known = this.index.get(key);
    if (known !== undefined) return known;
    if (this.tooIdle()) this.look(LOOKS_A_KEY);
    const group = keyGroupForCanonical(key, this.maxParallelism) - this.range.first;
    const list = this.lists[group];
    assert(list !== undefined, 'a record reaches the owner of its key group');
    const slot = this.free.pop() ?? this.slots++;
    let chunk = this.chunks[slot >>> CHUNK_BITS];
    if (chunk === undefined) {
      chunk = new KeyChunk();
      this.chunks.push(chunk);
    }
    const at = slot & (CHUNK_SLOTS - 1);
    const owned = typeof key === 'string' ? ownString(key) : key;
    chunk.keys[at] = owned;
    chunk.groups[at] = group;
    chunk.holders[at] = 0;
    this.index.add(owned, slot);
    list.push(slot);
    this.textBytes += keyBytes(owned);
    this.keys++;
    this.idle++;
    return slot;
  }

  keyOf(slot: number): SlotKey {
    return this.chunkOf(slot).keys[slot & (CHUNK_SLOTS - 1)] as SlotKey;
  }

  /** Counted from the first of the range. */
  groupOf(slot: number): number {
    return this.chunkOf(slot).groups[slot & (CHUNK_SLOTS - 1)] as number;
  }

  /** All that have a slot, whoever holds them. Gets longer at the end; else as it is while a view is pending. */
  list(group: number): readonly number[] {
    return this.lists[group] as readonly number[];
  }

  hold(slot: number): void {
    const { holders } = this.chunkOf(slot);
    const at = slot & (CHUNK_SLOTS - 1);
    if (holders[at] === 0) this.idle--;
    holders[at] = (holders[at] as number) + 1;
  }

  release(slot: number): void {
    const { holders } = this.chunkOf(slot);
    const at = slot & (CHUNK_SLOTS - 1);
    assert((holders[at] as number) > 0, 'K2: a slot is released by its holders');
    holders[at] = (holders[at] as number) - 1;
    if (holders[at] === 0) this.idle++;
  }

  /** A view of the group is pending: its keys stay where they are. */
  viewBegins(group: number): void {
    this.viewed[group] = (this.viewed[group] as number) + 1;
    this.views++;
  }

  viewEnds(group: number): void {
    this.viewed[group] = (this.viewed[group] as number) - 1;
    this.views--;
  }

  /** A column has released all it held. */
  columnGone(): void {
    if (!this.tooIdle()) return;
    if (this.idle < this.keys || this.views > 0) {
      this.look(LOOKS_A_COLUMN);
      return;
    }
    this.index = new KeyIndex();
    this.chunks = [];
    this.free = [];
    this.lists = emptyLists(this.range);
    this.slots = 0;
    this.keys = 0;
    this.idle = 0;
    this.textBytes = 0;
  }

  private tooIdle(): boolean {
    return this.idle > IDLE_MAX && this.idle * 2 > this.keys;
  }

  /** K3: lets go of what is held by nobody, where it is allowed. */
  private look(looks: number): void {
    const { hand, lists } = this;
    for (let left = looks; left > 0; left--) {
      const list = lists[hand.group] as number[];
      if (hand.at >= list.length || this.viewed[hand.group] !== 0) {
        hand.group = (hand.group + 1) % lists.length;
        hand.at = 0;
        continue;
      }
      const slot = list[hand.at] as number;
      const chunk = this.chunkOf(slot);
      const at = slot & (CHUNK_SLOTS - 1);
      if (chunk.holders[at] !== 0) {
        hand.at++;
        continue;
      }
      const key = chunk.keys[at] as SlotKey;
      this.index.delete(key);
      this.textBytes -= keyBytes(key);
      chunk.keys[at] = 0;
      this.free.push(slot);
      this.keys--;
      this.idle--;
      const last = list.pop() as number;
      if (last !== slot) list[hand.at] = last;
    }
  }

  private chunkOf(slot: number): KeyChunk {
    return this.chunks[slot >>> CHUNK_BITS] as KeyChunk;
  }
}

class KeyChunk {
  readonly keys: SlotKey[] = new Array<SlotKey>(CHUNK_SLOTS).fill(0);
  readonly groups = new Uint16Array(CHUNK_SLOTS);
  readonly holders = new Int32Array(CHUNK_SLOTS);
}

function emptyLists({ first, last }: KeyGroupRange): number[][] {
  return Array.from({ length: last - first + 1 }, () => []);
}
