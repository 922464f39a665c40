import { InvalidArgumentError } from '../kernel/errors.ts';
import type { CanonicalKey } from './key-group-hash.ts';

/**
 * What a backend gives for each state: access to what the current key has. The kinds of state that
 * users see, and their time-to-live, are made of these alone, and are the same for every backend.
 *
 * Values going in were admitted (`admit`) and belong to the backend. What comes out may be changed by
 * the holder until the current record is done, but only what is set again is sure to be kept.
 */
export interface SingleCells {
  /** Undefined when the current key has nothing. */
  get(): unknown;
  /** Not undefined. */
  set(value: unknown): void;
  remove(): void;
}

export interface ListCells {
  /** Undefined when the current key has nothing. The array itself is not to be changed. */
  get(): readonly unknown[] | undefined;
  append(items: readonly unknown[]): void;
  /** Takes the array. An empty one is the same as `remove`. */
  set(items: unknown[]): void;
  remove(): void;
}

export interface MapCells {
  /** {@link ABSENT} when there is no such entry: an entry may hold undefined. */
  get(mapKey: CanonicalKey): unknown;
  set(mapKey: CanonicalKey, value: unknown): void;
  delete(mapKey: CanonicalKey): void;
  /** In no particular order; entries may be changed and removed meanwhile. */
  entries(): Iterable<readonly [CanonicalKey, unknown]>;
  isEmpty(): boolean;
  clear(): void;
}

export const ABSENT = Symbol('absent');

/** How a state's cells are laid out; what a snapshot calls its kind. */
export type StateKind = 'value' | 'list' | 'map' | 'reducing' | 'aggregating';
export type CellLayout = 'single' | 'list' | 'map';

export function layoutOf(kind: StateKind): CellLayout {
  return kind === 'list' || kind === 'map' ? kind : 'single';
}

const KINDS: ReadonlySet<unknown> = new Set<StateKind>(['value', 'list', 'map', 'reducing', 'aggregating']);

export function isStateKind(kind: unknown): kind is StateKind {
  return KINDS.has(kind);
}

/** Where the rows of one state go, on their way into a snapshot or out of one. */
export interface RowSink {
  /** The cell of a key in a single-valued state. */
  single(key: CanonicalKey, value: unknown): void;
  /** The items of a key's list follow, up to `listEnd`. */
  listStart(key: CanonicalKey): void;
  listItem(item: unknown): void;
  listEnd(): void;
  /** One entry of a key's map. Entries of one key usually, but not always, follow each other. */
  mapEntry(key: CanonicalKey, mapKey: CanonicalKey, value: unknown): void;
}

/** An author's function uses the state of keys while no record or timer is handled. */
export function noKey(): InvalidArgumentError {
  return new InvalidArgumentError('keyed state was used where there is no key', {
    hint: 'Get states in open(), and use them while a record or a timer is handled.',
  });
}
