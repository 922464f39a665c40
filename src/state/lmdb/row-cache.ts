import { mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { open, type RootDatabase } from 'lmdb';
import { asError, MillraceError, UnavailableError } from '../../kernel/errors.ts';
import { ABSENT } from '../cells.ts';
import type { CanonicalKey } from '../key-group-hash.ts';
import { SizeEstimate } from '../size-estimate.ts';
import { isMutable } from '../state-value.ts';
import type { LmdbTable } from './lmdb-table.ts';
import { Generation, Row } from './row.ts';
import { type RowAddress, RowCodec } from './row-key.ts';

export interface RowCacheOptions {
  /** Made here, removed in the end. */
  readonly directory: string;
  /** Rows in memory take about this much. */
  readonly cacheBytes: number;
  /** Takes work that nobody waits for, and reports its failure. */
  readonly own: (work: () => Promise<void>) => void;
  /** Changed rows that wait in memory before some are written. */
  readonly dirtyRowsMax?: number;
}

const MAP_BYTES = 256 * 1024 ** 3;
const DIRTY_ROWS_MAX = 16_384;
/** Written at a time: a few milliseconds. Sorted, so that neighbours share a page. */
const FLUSHED_ROWS = 1_024;
/** A row with its place in a Map and its list, without key and value. */
const ROW_OVERHEAD_BYTES = 200;
/** Rows looked at for each one that comes too many. */
const EVICTION_LOOKS = 4;

/**
 * Rows of one backend: on disk, and in memory those that were used last or have changed.
 *
 * Invariants:
 *   L1. A row that waits to be written is in memory, and stays there.
 *   L2. Rows are written generation by generation, so what is on disk is never newer than what waits.
 *   L3. A generation that was closed does not change: its rows are replaced instead, and a value that a
 *       user may change in place is encoded before it is given out while a view needs it.
 *   L4. What a view reads is the database as of its read transaction, overlaid with the rows that waited
 *       at that moment.
 */
export class RowCache {
  readonly db: RootDatabase<Buffer, Buffer>;
  readonly codec = new RowCodec();
  readonly tables: LmdbTable[] = [];
  readonly sizes = new SizeEstimate();
  private current = new Generation(1);
  /** Closed ones with rows that are not on disk, oldest first. */
  private closed: Generation[] = [];
  private unflushed = 0;
  private cached = 0;
  private views = 0;
  private eviction: Iterator<Row> | undefined;
  private disposed = false;
  private closing = false;

  constructor(private readonly options: RowCacheOptions) {
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
    this.db = open<Buffer, Buffer>({
      path: options.directory,
      noSubdir: false,
      encoding: 'binary',
      keyEncoding: 'binary',
      cache: false,
      // A cache of one attempt: after a crash it is thrown away, so nothing need ever reach the disk itself.
      noSync: true,
      noMetaSync: true,
      overlappingSync: false,
      // Address space, not memory: growing it later would have to wait for all readers.
      mapSize: MAP_BYTES,
    });
  }

  get generation(): number {
    return this.current.id;
  }

  get estimatedBytes(): number {
    return this.cached * (ROW_OVERHEAD_BYTES + this.sizes.meanBytes);
  }

  /** On disk and waiting; a row that waits may be on disk too. */
  get rowsMax(): number {
    const stats: { entryCount?: number } = this.db.getStats();
    return (stats.entryCount ?? 0) + this.unflushed;
  }

  /** The row as it is now, from memory or disk; undefined when there is none. */
  find(table: LmdbTable, group: number, key: CanonicalKey, mapKey: CanonicalKey | undefined): Row | undefined {
    const cached = table.find(key, mapKey);
    if (cached !== undefined) {
      cached.used = true;
      return cached.value === ABSENT ? undefined : cached;
    }
    const address: RowAddress = { group, table: table.id, key, mapKey };
    const bytes = this.db.getBinaryFast(this.codec.key(address));
    if (bytes === undefined) return undefined;
    const row = new Row(table, group, key, mapKey, this.codec.readValue(bytes, address), this.current.id);
    this.sizes.sample(key, row.value);
    this.keep(row);
    return row;
  }

  /** The value of a row, for somebody who may change it in place (L3). */
  give(row: Row): unknown {
    if (this.isHeld(row) && isMutable(row.value)) this.encode(row);
    return row.value;
  }

  /** L3: for who is about to change a row's value in place. */
  release(row: Row): void {
    if (this.isHeld(row)) this.encode(row);
  }

  /** Changes a row, or makes it. `known` is what `find` gave. */
  write(
    known: Row | undefined,
    table: LmdbTable,
    group: number,
    key: CanonicalKey,
    mapKey: CanonicalKey | undefined,
    value: unknown,
  ): Row {
    const before = known ?? table.find(key, mapKey);
    let row = before;
    if (row === undefined || row.generation !== this.current.id) {
      row = new Row(table, group, before?.key ?? key, before?.mapKey ?? mapKey, value, this.current.id);
    }
    row.value = value;
    row.bytes = undefined;
    row.used = true;
    if (!row.listed) {
      row.listed = true;
      row.written = true;
      this.current.rows.push(row);
      this.unflushed++;
      // Also when it was in memory already: it may have been evicted while its owner held it.
      this.keep(row);
      if (this.unflushed > (this.options.dirtyRowsMax ?? DIRTY_ROWS_MAX)) this.flush(FLUSHED_ROWS);
    }
    this.sizes.sample(undefined, value);
    return row;
  }

  /** Ends the current generation: what it is to hold is fixed. */
  closeGeneration(): number {
    const { id } = this.current;
    if (this.current.rows.length > this.current.flushed) this.closed.push(this.current);
    this.current = new Generation(id + 1);
    return id;
  }

  /** What waits to be written, oldest first. After `closeGeneration` it is what a view needs besides the disk. */
  waiting(): Row[] {
    return this.closed.flatMap(({ rows, flushed }) => rows.slice(flushed));
  }

  /** A view begins; call the result when it ends. */
  hold(): () => void {
    this.views++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.views--;
      this.closeWhenUnused();
    };
  }

  /** Writes waiting rows, oldest first. L2 */
  flush(rowsMax: number): void {
    const generation = this.closed[0] ?? this.current;
    const batch = generation.rows.slice(generation.flushed, generation.flushed + rowsMax);
    if (batch.length === 0) return;
    const encoded = batch.map((row) => ({ row, key: Buffer.from(this.codec.key(row)) }));
    encoded.sort((a, b) => a.key.compare(b.key));
    this.transaction(() => {
      for (const { row, key } of encoded) {
        if (row.value === ABSENT) this.db.removeSync(key);
        else this.db.putSync(key, row.bytes ?? this.codec.value(row, row.value));
      }
    });
    generation.flushed += batch.length;
    this.unflushed -= batch.length;
    for (const row of batch) {
      row.listed = false;
      if (row.value === ABSENT && row.owner.find(row.key, row.mapKey) === row) this.drop(row);
    }
    if (generation.flushed === generation.rows.length) {
      if (generation !== this.current) this.closed.shift();
      else this.current = restarted(generation);
    }
  }

  flushAll(): void {
    while (this.unflushed > 0) this.flush(FLUSHED_ROWS);
  }

  transaction(work: () => void): void {
    try {
      this.db.transactionSync(work);
    } catch (error) {
      if (error instanceof MillraceError) throw error;
      throw new UnavailableError(`state could not be written to ${this.options.directory}: ${asError(error).message}`, {
        hint: 'check that the disk of the state directory has space and works',
        cause: error,
      });
    }
  }

  dispose(): void {
    this.disposed = true;
    this.closeWhenUnused();
  }

  private closeWhenUnused(): void {
    if (!this.disposed || this.views > 0 || this.closing) return;
    this.closing = true;
    this.options.own(async () => {
      await this.db.close();
      await rm(this.options.directory, { recursive: true, force: true });
    });
  }

  /** Whether a view may need the row as it is. */
  private isHeld(row: Row): boolean {
    return this.views > 0 && row.written && row.generation !== this.current.id;
  }

  private encode(row: Row): void {
    if (row.value !== ABSENT) row.bytes ??= this.codec.value(row, row.value);
  }

  private keep(row: Row): void {
    if (!row.owner.keep(row)) return;
    this.cached++;
    if (this.estimatedBytes > this.options.cacheBytes) this.evict();
  }

  private drop(row: Row): void {
    row.owner.forget(row);
    this.cached--;
  }

  /** A second chance for each row that was used since the last round. L1 */
  private evict(): void {
    for (let looks = 0; looks < EVICTION_LOOKS; looks++) {
      this.eviction ??= this.rounds();
      const next = this.eviction.next();
      if (next.done === true) {
        this.eviction = undefined;
        return;
      }
      const row = next.value;
      if (row.listed) continue;
      if (row.used) row.used = false;
      else this.drop(row);
    }
  }

  private *rounds(): Generator<Row> {
    for (const table of this.tables) yield* table.all();
  }
}

/** The generation goes on, without the rows that are on disk. */
function restarted({ id }: Generation): Generation {
  return new Generation(id);
}
