import { CorruptError } from '../kernel/errors.ts';
import { Stamped } from './stamped.ts';
import { SMALL_INT, setField, TAG, TYPED_ARRAYS } from './value-codec.ts';

/** What {@link ValueReader.readOrEnd} gives at the end of a list. */
export const END = Symbol('end');

/** Reads what one `ValueWriter` wrote between two resets. Throws `CORRUPT` for bytes that no writer makes. */
export class ValueReader {
  private at = 0;
  private readonly shapes: (readonly string[])[] = [];

  constructor(private readonly bytes: Buffer) {}

  get done(): boolean {
    return this.at === this.bytes.length;
  }

  readCount(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 0x80;
      if (scale > 2 ** 49) throw new CorruptError('a count in the snapshot is impossible');
    }
  }

  skip(bytes: number): void {
    this.take(bytes);
  }

  readOrEnd(): unknown {
    if (this.bytes[this.at] !== TAG.end) return this.read();
    this.at++;
    return END;
  }

  read(): unknown {
    const tag = this.byte();
    if (tag >= SMALL_INT) return tag - SMALL_INT;
    switch (tag) {
      case TAG.ascii:
        return this.text('latin1');
      case TAG.int32: {
        const zigzag = this.readCount();
        return (zigzag >>> 1) ^ -(zigzag & 1);
      }
      case TAG.float64:
        return this.float64();
      case TAG.shape:
        return this.fields(this.shapes[this.readCount()]);
      case TAG.newShape:
        return this.fields(this.newShape());
      case TAG.array:
        return this.items();
      case TAG.undefined:
        return undefined;
      case TAG.null:
        return null;
      case TAG.false:
        return false;
      case TAG.true:
        return true;
      case TAG.utf8:
        return this.text('utf8');
      case TAG.utf16:
        return this.text('utf16le');
      case TAG.bigint:
        return this.bigint();
      case TAG.date:
        return new Date(this.float64());
      case TAG.map: {
        const map = new Map<unknown, unknown>();
        for (let left = this.readCount(); left > 0; left--) map.set(this.read(), this.read());
        return map;
      }
      case TAG.set:
        return new Set(this.items());
      case TAG.typedArray:
        return this.typedArray();
      case TAG.stamped: {
        const stampMs = this.float64();
        return new Stamped(this.read(), stampMs);
      }
      default:
        throw new CorruptError(`the snapshot holds the unknown tag ${tag}`);
    }
  }

  private items(): unknown[] {
    const length = this.readCount();
    // Not allocated up front: a damaged length must end at the end of the bytes, not in exhausted memory.
    const items: unknown[] = [];
    for (let i = 0; i < length; i++) items.push(this.read());
    return items;
  }

  private newShape(): readonly string[] {
    const fields = this.fieldNames(this.readCount());
    this.shapes.push(fields);
    return fields;
  }

  private fieldNames(count: number): string[] {
    const fields: string[] = [];
    for (let i = 0; i < count; i++) {
      const field = this.read();
      if (typeof field !== 'string') throw new CorruptError('a field name in the snapshot is not text');
      fields.push(field);
    }
    return fields;
  }

  private fields(shape: readonly string[] | undefined): Record<string, unknown> {
    if (shape === undefined) throw new CorruptError('the snapshot refers to a shape that it does not hold');
    const value: Record<string, unknown> = {};
    for (const field of shape) setField(value, field, this.read());
    return value;
  }

  private text(encoding: 'latin1' | 'utf8' | 'utf16le'): string {
    const length = this.readCount();
    const start = this.take(length);
    return this.bytes.toString(encoding, start, start + length);
  }

  private bigint(): bigint {
    const negative = this.byte() === 1;
    const length = this.readCount();
    const start = this.take(length);
    const magnitude = BigInt(`0x${this.bytes.toString('hex', start, start + length) || '0'}`);
    return negative ? -magnitude : magnitude;
  }

  private typedArray(): NodeJS.TypedArray {
    const type = TYPED_ARRAYS[this.byte()];
    const length = this.readCount();
    if (type === undefined || length % type.BYTES_PER_ELEMENT !== 0) {
      throw new CorruptError('the snapshot holds a typed array of unknown kind');
    }
    const start = this.take(length);
    // A copy: aligned, and it does not keep the whole section alive.
    return new type(new Uint8Array(this.bytes.subarray(start, start + length)).buffer);
  }

  private float64(): number {
    return this.bytes.readDoubleLE(this.take(8));
  }

  private byte(): number {
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw truncated();
    return byte;
  }

  /** Moves past `length` bytes and gives where they start. */
  private take(length: number): number {
    const start = this.at;
    if (length > this.bytes.length - start) throw truncated();
    this.at = start + length;
    return start;
  }
}

function truncated(): CorruptError {
  return new CorruptError('the snapshot ends in the middle of a value');
}
