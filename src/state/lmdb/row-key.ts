import { createHash } from 'node:crypto';
import type { CanonicalKey } from '../key-group-hash.ts';
import { ValueWriter } from '../value-codec.ts';
import { ValueReader } from '../value-reader.ts';

/**
 * Keys and values of rows on disk. In the order of their bytes rows come by key group, then by state, then
 * by key, so that a key group's part of a snapshot is one range.
 *
 *   key     key group (2, big-endian) | state (2, big-endian) | key part | of a map's entry: key part of its map key
 *   part    0, the encoded key; or, when that is long, 1 and its SHA-256
 *   value   the keys that the row's key has only digests of, then the value
 *
 * Parts end by themselves, so all rows of one map are one range too. The database is a cache of one
 * attempt: nothing outlives it, so nothing of this is a format that must last.
 */

/** Two of these and the rest stay below what LMDB takes as a key (1,978 bytes). */
const PART_BYTES_MAX = 700;
export const ROW_PREFIX_BYTES = 4;

export interface RowAddress {
  readonly group: number;
  readonly table: number;
  readonly key: CanonicalKey;
  /** Undefined for rows that are not entries of maps. */
  readonly mapKey: CanonicalKey | undefined;
}

/** Encodes and decodes rows. Not for concurrent use; what it returns is good until the next call. */
export class RowCodec {
  private readonly writer = new ValueWriter(4_096);
  private readonly keyBytes = Buffer.allocUnsafe(ROW_PREFIX_BYTES + 2 * (PART_BYTES_MAX + 1));

  /** Good until the next call. */
  key({ group, table, key, mapKey }: RowAddress): Buffer {
    let end = this.prefix(group, table);
    end = this.part(key, end);
    if (mapKey !== undefined) end = this.part(mapKey, end);
    return this.keyBytes.subarray(0, end);
  }

  /** The bytes that all rows of the state in the key group begin with. */
  tablePrefix(group: number, table: number): Buffer {
    return Buffer.from(this.keyBytes.subarray(0, this.prefix(group, table)));
  }

  /** The bytes that all entries of a key's map begin with. */
  mapPrefix(group: number, table: number, key: CanonicalKey): Buffer {
    return Buffer.from(this.keyBytes.subarray(0, this.part(key, this.prefix(group, table))));
  }

  /** A copy. */
  value({ key, mapKey }: RowAddress, value: unknown): Buffer {
    const { writer } = this;
    const long = this.isLong(key);
    const longMapKey = mapKey !== undefined && this.isLong(mapKey);
    writer.reset();
    if (long) writer.write(key);
    if (longMapKey) writer.write(mapKey);
    writer.write(value);
    return writer.toBytes();
  }

  /** The value of a row whose key is known. */
  readValue(bytes: Buffer, { key, mapKey }: RowAddress): unknown {
    const reader = new ValueReader(bytes);
    if (this.isLong(key)) reader.read();
    if (mapKey !== undefined && this.isLong(mapKey)) reader.read();
    return reader.read();
  }

  readRow(keyBytes: Buffer, bytes: Buffer, isMap: boolean): DecodedRow {
    const keys = new ValueReader(keyBytes.subarray(ROW_PREFIX_BYTES));
    const values = new ValueReader(bytes);
    const key = readPart(keys, values);
    const mapKey = isMap ? readPart(keys, values) : undefined;
    return { key, mapKey, value: () => values.read() };
  }

  private prefix(group: number, table: number): number {
    this.keyBytes.writeUInt16BE(group, 0);
    this.keyBytes.writeUInt16BE(table, 2);
    return ROW_PREFIX_BYTES;
  }

  private part(key: CanonicalKey, start: number): number {
    const { writer, keyBytes } = this;
    writer.reset();
    writer.write(key);
    const encoded = writer.view();
    if (encoded.length <= PART_BYTES_MAX) {
      keyBytes[start] = 0;
      keyBytes.set(encoded, start + 1);
      return start + 1 + encoded.length;
    }
    keyBytes[start] = 1;
    keyBytes.set(createHash('sha256').update(encoded).digest(), start + 1);
    return start + 1 + 32;
  }

  private isLong(key: CanonicalKey): boolean {
    // Shorter than this cannot become longer than the limit in any encoding.
    if (typeof key === 'number' || typeof key === 'boolean') return false;
    if (typeof key === 'string' && key.length * 3 + 11 <= PART_BYTES_MAX) return false;
    this.writer.reset();
    this.writer.write(key);
    return this.writer.bytesWritten > PART_BYTES_MAX;
  }
}

export interface DecodedRow {
  readonly key: CanonicalKey;
  readonly mapKey: CanonicalKey | undefined;
  /** Call at most once. */
  readonly value: () => unknown;
}

function readPart(keys: ValueReader, values: ValueReader): CanonicalKey {
  if (keys.readCount() === 0) return keys.read() as CanonicalKey;
  keys.skip(32);
  return values.read() as CanonicalKey;
}

/** The first bytes after all that begin with `prefix`; undefined when there are none. */
export function afterPrefix(prefix: Buffer): Buffer | undefined {
  const end = Buffer.from(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    const byte = end[i] as number;
    if (byte < 0xff) {
      end[i] = byte + 1;
      return end.subarray(0, i + 1);
    }
  }
  return undefined;
}
