import { type CanonicalKey, hashCanonicalKey } from './key-group-hash.ts';

/** Maps that the keys of a large state are spread over: none grows so large that its growing is felt as a pause. */
const SHARDS = 64;
/** Up to here one Map holds all keys: it is found without looking at the key, and grows within some 3 ms. */
const FEW_MAX = 65_536;
/** Keys that move for each new one: all have moved long before the new ones are as many. */
const MOVES = 4;

/**
 * The cells of one state by key, or what else there is one of for each key.
 *
 *   I1. A key that is held is in `few`, in its shard, or, once moved, in both; then both hold the same.
 *   I2. Nothing enters `few` once it has begun to move, so the walk through it meets every key once.
 */
export class KeyIndex<V> {
  /** Undefined once all of it lies in the shards. */
  private few: Map<CanonicalKey, V> | undefined = new Map();
  private shards: readonly Map<CanonicalKey, V>[] | undefined;
  private moving: IterableIterator<[CanonicalKey, V]> | undefined;

  get(key: CanonicalKey): V | undefined {
    const { few } = this;
    if (few !== undefined) {
      const cell = few.get(key);
      if (cell !== undefined || this.shards === undefined) return cell;
    }
    return this.shardFor(key).get(key);
  }

  /** `key` is new. */
  add(key: CanonicalKey, cell: V): void {
    const { few } = this;
    if (few !== undefined) {
      if (this.moving === undefined && few.size < FEW_MAX) {
        few.set(key, cell);
        return;
      }
      this.move(few);
    }
    this.shardFor(key).set(key, cell);
  }

  delete(key: CanonicalKey): void {
    this.few?.delete(key);
    if (this.shards !== undefined) this.shardFor(key).delete(key);
  }

  private move(few: Map<CanonicalKey, V>): void {
    this.shards ??= Array.from({ length: SHARDS }, () => new Map());
    this.moving ??= few.entries();
    for (let i = 0; i < MOVES; i++) {
      const next = this.moving.next();
      if (next.done === true) {
        this.few = undefined;
        this.moving = undefined;
        return;
      }
      const [key, cell] = next.value;
      this.shardFor(key).set(key, cell);
    }
  }

  private shardFor(key: CanonicalKey): Map<CanonicalKey, V> {
    return (this.shards as readonly Map<CanonicalKey, V>[])[shardOf(key)] as Map<CanonicalKey, V>;
  }
}

/**
 * Which Map a key is in: any function of the key will do, so a cheap one over a few characters. Keys
 * that agree in all of those share a Map, which is slower to grow and otherwise no worse.
 */
function shardOf(key: CanonicalKey): number {
  if (typeof key === 'string') {
    const { length } = key;
    if (length === 0) return 0;
    let h = Math.imul(length, 31) + key.charCodeAt(length - 1);
    h = Math.imul(h, 31) + key.charCodeAt(length >> 1);
    h = Math.imul(h, 31) + key.charCodeAt(length - 1 - (length >> 2));
    h = Math.imul(h, 31) + key.charCodeAt(0);
    if (length > 1) h = Math.imul(h, 31) + key.charCodeAt(length - 2);
    return Math.imul(h, GOLDEN) >>> SHARD_SHIFT;
  }
  if (typeof key === 'number' && (key | 0) === key) return Math.imul(key, GOLDEN) >>> SHARD_SHIFT;
  return hashCanonicalKey(key) >>> SHARD_SHIFT;
}

const GOLDEN = 0x9e3779b1;
const SHARD_SHIFT = 26; // 32 bits less log2(SHARDS).
