import { types } from 'node:util';
import { serialize } from 'node:v8';
import { InvalidArgumentError } from '../kernel/errors.ts';
import type { RecordEncoder } from './record-codec.ts';
import { DEPTH_MAX, SHAPED_OBJECT, SHAPES_MAX, SHORT_STRING, SHORT_STRING_MAX, TAG } from './row-tags.ts';

const INITIAL_BYTES = 8 * 1024;
/** A buffer that one huge record made grow is not kept. */
const KEPT_BYTES_MAX = 1024 * 1024;
/** Below this many characters a loop beats a call into native code. */
const LOOP_CHARS_MAX = 48;
/** The batch begins with the number of records. */
const COUNT_BYTES = 4;

export class RowEncoder implements RecordEncoder {
  private buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES);
  private view = viewOf(this.buffer);
  private position = COUNT_BYTES;
  private count = 0;
  private readonly shapes: (readonly string[])[] = [];

  get records(): number {
    return this.count;
  }

  get bytes(): number {
    return this.position;
  }

  append(record: unknown): void {
    const start = this.position;
    const shapes = this.shapes.length;
    try {
      this.write(record, 0);
    } catch (error) {
      this.position = start;
      this.shapes.length = shapes;
      throw error;
    }
    this.count++;
  }

  finish(): Uint8Array {
    this.view.setUint32(0, this.count, true);
    const payload = Buffer.allocUnsafeSlow(this.position);
    this.buffer.copy(payload, 0, 0, this.position);
    this.position = COUNT_BYTES;
    this.count = 0;
    this.shapes.length = 0;
    if (this.buffer.length > KEPT_BYTES_MAX) this.replaceBuffer(Buffer.allocUnsafeSlow(INITIAL_BYTES));
    return payload;
  }

  private write(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
        this.writeString(value);
        return;
      case 'number':
        this.writeNumber(value);
        return;
      case 'boolean':
        this.writeByte(value ? TAG.true : TAG.false);
        return;
      case 'undefined':
        this.writeByte(TAG.undefined);
        return;
      case 'bigint':
        this.writeBigint(value);
        return;
      case 'object':
        if (value === null) this.writeByte(TAG.null);
        else this.writeObject(value, depth);
        return;
      default:
        throw unsupported(`a ${typeof value}`);
    }
  }

  private writeNumber(value: number): void {
    if ((value | 0) === value && !Object.is(value, -0)) {
      if (value >= 0 && value < SHORT_STRING) {
        this.writeByte(value);
        return;
      }
      this.writeByte(TAG.int);
      this.writeVarint(((value << 1) ^ (value >> 31)) >>> 0);
      return;
    }
    this.reserve(9);
    this.buffer[this.position] = TAG.float;
    this.view.setFloat64(this.position + 1, value, true);
    this.position += 9;
  }

  private writeString(value: string): void {
    const length = value.length;
    if (length <= LOOP_CHARS_MAX && this.writeShortAscii(value, length)) return;
    const utf8Bytes = Buffer.byteLength(value, 'utf8');
    if (utf8Bytes === length) this.writeText(TAG.ascii, value, length, 'latin1');
    else if (hasLoneSurrogate(value)) this.writeText(TAG.utf16, value, length * 2, 'utf16le');
    else this.writeText(TAG.utf8, value, utf8Bytes, 'utf8');
  }

  /** False, with nothing written, when a character is not ASCII. */
  private writeShortAscii(value: string, length: number): boolean {
    this.reserve(length + 2);
    const buffer = this.buffer;
    let position = this.position;
    if (length <= SHORT_STRING_MAX) {
      buffer[position++] = SHORT_STRING + length;
    } else {
      buffer[position++] = TAG.ascii;
      buffer[position++] = length;
    }
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code > 0x7f) return false;
      buffer[position++] = code;
    }
    this.position = position;
    return true;
  }

  private writeText(tag: number, value: string, bytes: number, encoding: BufferEncoding): void {
    this.writeByte(tag);
    this.writeVarint(bytes);
    this.reserve(bytes);
    this.buffer.write(value, this.position, bytes, encoding);
    this.position += bytes;
  }

  private writeBigint(value: bigint): void {
    const negative = value < 0n;
    let hex = (negative ? -value : value).toString(16);
    if (hex.length % 2 === 1) hex = `0${hex}`;
    const magnitude = Buffer.from(hex, 'hex');
    this.writeByte(TAG.bigint);
    this.writeByte(negative ? 1 : 0);
    this.writeBytes(magnitude);
  }

  private writeObject(value: object, depth: number): void {
    if (depth >= DEPTH_MAX)
      throw unsupported(`a value nested deeper than ${DEPTH_MAX} levels, or one that holds itself`);
    if (Array.isArray(value)) {
      this.writeByte(TAG.array);
      this.writeVarint(value.length);
      for (let i = 0; i < value.length; i++) this.write(value[i], depth + 1);
      return;
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null || !this.writeBuiltIn(value, depth)) {
      this.writeFields(value as Record<string, unknown>, depth);
    }
  }

  /** False when the value is not a built-in: then it is sent as its own fields, as structured clone does. */
  private writeBuiltIn(value: object, depth: number): boolean {
    if (types.isDate(value)) {
      this.writeByte(TAG.date);
      this.writeNumber(value.getTime());
      return true;
    }
    if (types.isUint8Array(value)) {
      this.writeByte(TAG.bytes);
      this.writeBytes(value);
      return true;
    }
    if (types.isMap(value)) {
      this.writeByte(TAG.map);
      this.writeVarint(value.size);
      for (const [key, entry] of value) {
        this.write(key, depth + 1);
        this.write(entry, depth + 1);
      }
      return true;
    }
    if (types.isSet(value)) {
      this.writeByte(TAG.set);
      this.writeVarint(value.size);
      for (const entry of value) this.write(entry, depth + 1);
      return true;
    }
    if (isRareBuiltIn(value)) {
      const bytes = serialize(value);
      this.writeByte(TAG.v8);
      this.writeBytes(bytes);
      return true;
    }
    if (types.isPromise(value) || types.isWeakMap(value) || types.isWeakSet(value) || types.isGeneratorObject(value)) {
      throw unsupported(`a ${Object.prototype.toString.call(value).slice(8, -1)}`);
    }
    return false;
  }

  private writeFields(value: Record<string, unknown>, depth: number): void {
    const fields = Object.keys(value);
    const shape = this.shapeOf(fields);
    if (shape >= 0) {
      this.writeByte(SHAPED_OBJECT + shape);
    } else {
      const definable = this.shapes.length < SHAPES_MAX;
      if (definable) this.shapes.push(fields);
      this.writeByte(definable ? TAG.newShape : TAG.object);
      this.writeVarint(fields.length);
      for (const field of fields) this.writeString(field);
    }
    for (let i = 0; i < fields.length; i++) this.write(value[fields[i] as string], depth + 1);
  }

  private shapeOf(fields: readonly string[]): number {
    const shapes = this.shapes;
    // A loop inside a loop with a label is the fast form: most batches have one or two shapes.
    next: for (let s = 0; s < shapes.length; s++) {
      const shape = shapes[s] as readonly string[];
      if (shape.length !== fields.length) continue;
      for (let i = 0; i < fields.length; i++) if (shape[i] !== fields[i]) continue next;
      return s;
    }
    return -1;
  }

  private writeBytes(bytes: Uint8Array): void {
    this.writeVarint(bytes.length);
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.position);
    this.position += bytes.length;
  }

  private writeByte(byte: number): void {
    this.reserve(1);
    this.buffer[this.position++] = byte;
  }

  /** Unsigned, up to 32 bit. */
  private writeVarint(value: number): void {
    this.reserve(5);
    let rest = value;
    while (rest > 0x7f) {
      this.buffer[this.position++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.buffer[this.position++] = rest;
  }

  private reserve(bytes: number): void {
    const needed = this.position + bytes;
    if (needed <= this.buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.buffer.length * 2));
    this.buffer.copy(grown, 0, 0, this.position);
    this.replaceBuffer(grown);
  }

  private replaceBuffer(buffer: Buffer<ArrayBuffer>): void {
    this.buffer = buffer;
    this.view = viewOf(buffer);
  }
}

function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/** With the `u` flag a pair of surrogates is one character, so only lone ones match. */
const LONE_SURROGATE = /\p{Surrogate}/u;

function hasLoneSurrogate(value: string): boolean {
  return LONE_SURROGATE.test(value);
}

function isRareBuiltIn(value: object): boolean {
  return (
    ArrayBuffer.isView(value) ||
    types.isArrayBuffer(value) ||
    types.isNativeError(value) ||
    types.isRegExp(value) ||
    types.isBoxedPrimitive(value)
  );
}

function unsupported(what: string): InvalidArgumentError {
  return new InvalidArgumentError(`${what} cannot be sent between subtasks`, {
    hint: 'Emit plain data: numbers, strings, bigints, booleans, null, dates, byte arrays, and arrays, maps, sets and objects of them.',
  });
}
