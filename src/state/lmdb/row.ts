import type { ABSENT } from '../cells.ts';
import type { CanonicalKey } from '../key-group-hash.ts';
import type { LmdbTable } from './lmdb-table.ts';
import type { RowAddress } from './row-key.ts';

/**
 * A row in memory: one that was read from disk, or one that is not there yet.
 *
 * A row belongs to the generation that it was made in. In a later one it is not changed but replaced, so
 * that the snapshots that hold its generation keep what it was.
 */
export class Row implements RowAddress {
  /** Waits in its generation to be written to disk. */
  listed = false;
  /** Was changed, so its generation's snapshots may need it. */
  written = false;
  /** The value's bytes, taken before somebody could change the value in place. */
  bytes: Buffer | undefined;
  /** Was used since the last round of eviction. */
  used = true;

  constructor(
    readonly owner: LmdbTable,
    /** Counted from the first of the backend's range. */
    readonly group: number,
    readonly key: CanonicalKey,
    readonly mapKey: CanonicalKey | undefined,
    public value: unknown | typeof ABSENT,
    readonly generation: number,
  ) {}

  get table(): number {
    return this.owner.id;
  }
}

/** Rows changed between two cuts, or two closings, in the order of their first change. */
export class Generation {
  readonly rows: Row[] = [];
  /** So many of `rows` are on disk. */
  flushed = 0;

  constructor(readonly id: number) {}
}
