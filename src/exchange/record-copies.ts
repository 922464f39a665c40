import { rowCodec } from './row-codec.ts';

/**
 * A batch of copies, for a consumer in the same thread. What the consumer gets is what it would get
 * through a codec (a record of its own, equal to what was emitted at that instant), at a fraction of
 * the cost: most records are flat, and a flat object is copied in a few nanoseconds.
 */
export class RecordCopies {
  private copies: unknown[] = [];
  /** About what the records take. */
  bytes = 0;

  get records(): number {
    return this.copies.length;
  }

  /** Throws for a record that no codec would take, and holds then what it held before. */
  append(record: unknown): void {
    const size = flatSize(record);
    if (size >= 0) {
      this.bytes += size;
      this.copies.push(copyFlat(record));
      return;
    }
    this.appendDeep(record);
  }

  /** A copy of one record, not held here. Its size is added to `bytes`. */
  copy(record: unknown): unknown {
    const size = flatSize(record);
    if (size >= 0) {
      this.bytes += size;
      return copyFlat(record);
    }
    this.appendDeep(record);
    return this.copies.pop();
  }

  /** The copies; nothing is left of them here. */
  finish(): readonly unknown[] {
    const { copies } = this;
    this.copies = [];
    this.bytes = 0;
    return copies;
  }

  private appendDeep(record: unknown): void {
    const encoder = rowCodec.createEncoder();
    encoder.append(record);
    const payload = encoder.finish();
    this.copies.push(...rowCodec.createDecoder().decode(payload));
    this.bytes += payload.length;
  }
}

const NOT_FLAT = -1;
/** Of a number, a reference or a field. */
const WORD_BYTES = 8;
const OBJECT_BYTES = 16;
const FLAT_ARRAY_MAX = 64;

/** About the bytes of a record that holds nothing but primitives; else {@link NOT_FLAT}. */
function flatSize(record: unknown): number {
  if (typeof record !== 'object' || record === null) return primitiveSize(record);
  if (Array.isArray(record)) return flatArraySize(record);
  if (Object.getPrototypeOf(record) !== Object.prototype) return NOT_FLAT;
  let size = OBJECT_BYTES;
  // A field of `Object.prototype` itself, should someone have added one, is no field of the record's copy either.
  for (const field in record) {
    const own = primitiveSize((record as Record<string, unknown>)[field]);
    if (own < 0) return NOT_FLAT;
    size += own;
  }
  return size;
}

function flatArraySize(record: readonly unknown[]): number {
  if (record.length > FLAT_ARRAY_MAX) return NOT_FLAT;
  let size = OBJECT_BYTES;
  for (let i = 0; i < record.length; i++) {
    const own = primitiveSize(record[i]);
    if (own < 0) return NOT_FLAT;
    size += own;
  }
  return size;
}

function primitiveSize(value: unknown): number {
  switch (typeof value) {
    case 'string':
      return WORD_BYTES + value.length;
    case 'number':
    case 'boolean':
    case 'undefined':
      return WORD_BYTES;
    case 'object':
      return value === null ? WORD_BYTES : NOT_FLAT;
    default:
      // A bigint may be of any length; functions and symbols are refused by the codec.
      return NOT_FLAT;
  }
}

function copyFlat(record: unknown): unknown {
  if (typeof record !== 'object' || record === null) return record;
  // By index, so that a hole comes out as undefined, as from every codec.
  if (!Array.isArray(record)) return { ...record };
  const copy: unknown[] = [];
  for (let i = 0; i < record.length; i++) copy.push(record[i]);
  return copy;
}

/** A record of its own, equal to the given one. Throws for a record that no codec would take. */
export function copyRecord(record: unknown): unknown {
  return new RecordCopies().copy(record);
}
