import { deserialize } from 'node:v8';
import { CorruptError } from '../kernel/errors.ts';
import type { RecordDecoder } from './record-codec.ts';
import { DEPTH_MAX, SHAPED_OBJECT, SHAPES_MAX, SHORT_STRING, TAG } from './row-tags.ts';

export class RowDecoder implements RecordDecoder {
  private buffer: Buffer = Buffer.alloc(0);
  private position = 0;
  private shapes: (readonly string[])[] = [];

  decode(payload: Uint8Array): readonly unknown[] {
    this.buffer = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    this.position = 0;
    this.shapes = [];
    try {
      return this.readBatch();
    } catch (error) {
      if (error instanceof CorruptError) throw error;
      // Reading past the end or a blob that V8 refuses: the bytes are at fault, not the program.
      throw new CorruptError('a batch of records cannot be decoded', { cause: error });
    } finally {
      this.buffer = Buffer.alloc(0);
    }
  }

  private readBatch(): unknown[] {
    const count = this.buffer.readUInt32LE(0);
    this.position = 4;
    if (count > this.buffer.length)
      throw new CorruptError(`a batch of ${this.buffer.length} bytes claims ${count} records`);
    const records = new Array<unknown>(count);
    for (let i = 0; i < count; i++) records[i] = this.read(0);
    if (this.position !== this.buffer.length) {
      throw new CorruptError(`a batch has ${this.buffer.length - this.position} bytes more than its ${count} records`);
    }
    return records;
  }

  private read(depth: number): unknown {
    const tag = this.readByte();
    if (tag < SHORT_STRING) return tag;
    if (tag < SHAPED_OBJECT) return this.readText(tag - SHORT_STRING, 'latin1');
    if (depth > DEPTH_MAX) throw new CorruptError('a record is nested too deeply');
    if (tag < SHAPED_OBJECT + SHAPES_MAX) {
      const shape = this.shapes[tag - SHAPED_OBJECT];
      if (shape === undefined) throw new CorruptError('a record refers to a shape that was not defined');
      return this.readFields(shape, depth);
    }
    switch (tag) {
      case TAG.null:
        return null;
      case TAG.undefined:
        return undefined;
      case TAG.true:
        return true;
      case TAG.false:
        return false;
      case TAG.int: {
        const zigzag = this.readVarint();
        return (zigzag >>> 1) ^ -(zigzag & 1);
      }
      case TAG.float:
        this.position += 8;
        return this.buffer.readDoubleLE(this.position - 8);
      case TAG.bigint:
        return this.readBigint();
      case TAG.ascii:
        return this.readText(this.readVarint(), 'latin1');
      case TAG.utf8:
        return this.readText(this.readVarint(), 'utf8');
      case TAG.utf16:
        return this.readText(this.readVarint(), 'utf16le');
      case TAG.date:
        return new Date(this.read(depth + 1) as number);
      case TAG.bytes:
        return Uint8Array.from(this.readBytes());
      case TAG.v8:
        return deserialize(this.readBytes());
      default:
        return this.readCollection(tag, depth);
    }
  }

  private readCollection(tag: number, depth: number): unknown {
    const size = this.readVarint();
    switch (tag) {
      case TAG.array: {
        const array: unknown[] = [];
        for (let i = 0; i < size; i++) array.push(this.read(depth + 1));
        return array;
      }
      case TAG.newShape:
      case TAG.object: {
        const fields = this.readFieldNames(size);
        if (tag === TAG.newShape) this.shapes.push(fields);
        return this.readFields(fields, depth);
      }
      case TAG.map: {
        const map = new Map<unknown, unknown>();
        for (let i = 0; i < size; i++) {
          const key = this.read(depth + 1);
          map.set(key, this.read(depth + 1));
        }
        return map;
      }
      case TAG.set: {
        const set = new Set<unknown>();
        for (let i = 0; i < size; i++) set.add(this.read(depth + 1));
        return set;
      }
      default:
        throw new CorruptError(`a batch holds the unknown tag ${tag}`);
    }
  }

  private readFieldNames(count: number): readonly string[] {
    const fields: string[] = [];
    for (let i = 0; i < count; i++) fields.push(this.read(0) as string);
    return fields;
  }

  private readFields(fields: readonly string[], depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i] as string;
      const value = this.read(depth + 1);
      // An assignment to `__proto__` would replace the prototype instead of making a field.
      if (field === '__proto__') {
        Object.defineProperty(object, field, { value, enumerable: true, configurable: true, writable: true });
      } else object[field] = value;
    }
    return object;
  }

  private readBigint(): bigint {
    const negative = this.readByte() === 1;
    const hex = this.readBytes().toString('hex');
    const magnitude = BigInt(`0x${hex}`);
    return negative ? -magnitude : magnitude;
  }

  private readText(bytes: number, encoding: 'latin1' | 'utf8' | 'utf16le'): string {
    const start = this.advance(bytes);
    return this.buffer.toString(encoding, start, start + bytes);
  }

  private readBytes(): Buffer {
    const length = this.readVarint();
    const start = this.advance(length);
    return this.buffer.subarray(start, start + length);
  }

  private readByte(): number {
    const byte = this.buffer[this.position++];
    if (byte === undefined) throw new CorruptError('a batch of records ends in the middle of a record');
    return byte;
  }

  private readVarint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.readByte();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new CorruptError('a batch of records holds a number of more than 32 bits');
  }

  /** Moves over `bytes` and gives where they start. */
  private advance(bytes: number): number {
    const start = this.position;
    if (start + bytes > this.buffer.length) throw new CorruptError('a batch of records ends in the middle of a record');
    this.position = start + bytes;
    return start;
  }
}
