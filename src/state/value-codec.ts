import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { Stamped } from './stamped.ts';

/**
 * Structured values as bytes, for snapshots.
 *
 * Snapshots outlive processes and releases, so the format is our own: it does not change with Node
 * (as `v8.serialize` does) or with a library's release. It keeps what structured JavaScript data needs:
 * -0, NaN, undefined against null, bigint of any size, lone surrogates, Date, Map, Set, typed arrays.
 * Objects refer to a table of shapes, so field names are written once for a writer's life.
 *
 * Numbers are never reused or given a new meaning; new tags go to the end.
 */
export const TAG = {
  undefined: 0,
  null: 1,
  false: 2,
  true: 3,
  int32: 4,
  float64: 5,
  /** Text whose UTF-8 form is one byte a character. */
  ascii: 6,
  utf8: 7,
  /** Text with lone surrogates, which UTF-8 cannot hold. */
  utf16: 8,
  bigint: 9,
  array: 10,
  newShape: 11,
  shape: 12,
  date: 13,
  map: 14,
  set: 15,
  typedArray: 16,
  /** Not a value: ends a list of unknown length. */
  end: 17,
  /** A value of a state with a time-to-live: its stamp, then the value. */
  stamped: 18,
} as const;

/** Tags from here on are the integers 0..127, in one byte. */
export const SMALL_INT = 0x80;

/** By number in the format: only ever appended to. Elements are kept in little-endian order, as all of Node's platforms but one do. */
export const TYPED_ARRAYS = [
  Uint8Array,
  Int8Array,
  Uint8ClampedArray,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;

/** Deeper values are almost certainly cyclic. */
export const VALUE_DEPTH_MAX = 64;

const LONE_SURROGATE = /\p{Surrogate}/u;
/** Below this the loop in JavaScript beats the call into the engine. */
const SHORT_TEXT = 24;

export class ValueWriter {
  private buffer: Buffer;
  private length = 0;
  private shapes = new Map<string, number>();
  private lastShape: readonly string[] = [];
  private lastShapeId = -1;

  constructor(initialBytes = 4_096) {
    this.buffer = Buffer.allocUnsafe(initialBytes);
  }

  get bytesWritten(): number {
    return this.length;
  }

  /** What was written since the last reset, copied, so that the writer can be used again. */
  toBytes(): Buffer {
    return Buffer.from(this.buffer.subarray(0, this.length));
  }

  /** What was written since the last reset; good until the next write. */
  view(): Buffer {
    return this.buffer.subarray(0, this.length);
  }

  /** Forgets bytes and shapes, keeps the memory. */
  reset(): void {
    this.length = 0;
    if (this.shapes.size === 0) return;
    this.shapes = new Map();
    this.lastShape = [];
    this.lastShapeId = -1;
  }

  writeEnd(): void {
    this.writeByte(TAG.end);
  }

  writeCount(value: number): void {
    this.reserve(10);
    this.varint(value);
  }

  write(value: unknown): void {
    this.writeValue(value, 0);
  }

  private writeValue(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
        this.writeText(value);
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
        throw unsupportedValue(value);
    }
  }

  private writeNumber(value: number): void {
    this.reserve(9);
    const int = value | 0;
    if (int === value && (int !== 0 || !Object.is(value, -0))) {
      if (int >= 0 && int < 128) {
        this.buffer[this.length++] = SMALL_INT | int;
      } else {
        this.buffer[this.length++] = TAG.int32;
        this.varint(((int << 1) ^ (int >> 31)) >>> 0);
      }
      return;
    }
    this.buffer[this.length++] = TAG.float64;
    this.length = this.buffer.writeDoubleLE(value, this.length);
  }

  private writeText(text: string): void {
    const length = text.length;
    if (length <= SHORT_TEXT && this.writeShortAscii(text)) return;
    const bytes = Buffer.byteLength(text, 'utf8');
    this.reserve(11 + bytes);
    if (bytes === length) {
      this.buffer[this.length++] = TAG.ascii;
      this.varint(bytes);
      this.length += this.buffer.write(text, this.length, 'latin1');
    } else if (LONE_SURROGATE.test(text)) {
      this.reserve(11 + length * 2);
      this.buffer[this.length++] = TAG.utf16;
      this.varint(length * 2);
      this.length += this.buffer.write(text, this.length, 'utf16le');
    } else {
      this.buffer[this.length++] = TAG.utf8;
      this.varint(bytes);
      this.length += this.buffer.write(text, this.length, 'utf8');
    }
  }

  /** Gives up, with nothing written, at the first character that is not ASCII. */
  private writeShortAscii(text: string): boolean {
    const length = text.length;
    this.reserve(2 + length);
    const { buffer } = this;
    const start = this.length + 2;
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit >= 0x80) return false;
      buffer[start + i] = unit;
    }
    buffer[this.length] = TAG.ascii;
    buffer[this.length + 1] = length;
    this.length = start + length;
    return true;
  }

  private writeBigint(value: bigint): void {
    const negative = value < 0n;
    const hex = (negative ? -value : value).toString(16);
    const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
    this.reserve(12 + bytes.length);
    this.buffer[this.length++] = TAG.bigint;
    this.buffer[this.length++] = negative ? 1 : 0;
    this.varint(bytes.length);
    this.raw(bytes);
  }

  private writeObject(value: object, depth: number): void {
    if (depth >= VALUE_DEPTH_MAX) throw tooDeep();
    if (Array.isArray(value)) {
      this.writeHead(TAG.array, value.length);
      for (let i = 0; i < value.length; i++) this.writeValue(value[i], depth + 1);
    } else if (isPlainObject(value)) {
      this.writeFields(value, depth);
    } else if (value instanceof Map) {
      this.writeHead(TAG.map, value.size);
      for (const [key, item] of value) {
        this.writeValue(key, depth + 1);
        this.writeValue(item, depth + 1);
      }
    } else if (value instanceof Set) {
      this.writeHead(TAG.set, value.size);
      for (const item of value) this.writeValue(item, depth + 1);
    } else if (value instanceof Stamped) {
      this.reserve(9);
      this.buffer[this.length++] = TAG.stamped;
      this.length = this.buffer.writeDoubleLE(value.stampMs, this.length);
      this.writeValue(value.value, depth);
    } else if (value instanceof Date) {
      this.reserve(9);
      this.buffer[this.length++] = TAG.date;
      this.length = this.buffer.writeDoubleLE(value.getTime(), this.length);
    } else if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      this.writeTypedArray(value);
    } else {
      throw unsupportedValue(value);
    }
  }

  private writeFields(value: Record<string, unknown>, depth: number): void {
    const fields = Object.keys(value);
    if (!sameFields(fields, this.lastShape)) this.selectShape(fields);
    else this.writeHead(TAG.shape, this.lastShapeId);
    for (const field of fields) this.writeValue(value[field], depth + 1);
  }

  private selectShape(fields: readonly string[]): void {
    // Lengths keep ['a,b'] and ['a', 'b'] apart.
    const name = fields.map((field) => `${field.length}:${field}`).join('');
    const known = this.shapes.get(name);
    const id = known ?? this.shapes.size;
    if (known === undefined) {
      this.shapes.set(name, id);
      this.writeHead(TAG.newShape, fields.length);
      for (const field of fields) this.writeText(field);
    } else {
      this.writeHead(TAG.shape, id);
    }
    this.lastShape = fields;
    this.lastShapeId = id;
  }

  private writeTypedArray(value: ArrayBufferView): void {
    // A Buffer is a Uint8Array of a subclass; it comes back as a plain Uint8Array.
    const kind = TYPED_ARRAYS.findIndex((type) => value instanceof type);
    if (kind < 0) throw unsupportedValue(value);
    this.reserve(12 + value.byteLength);
    this.buffer[this.length++] = TAG.typedArray;
    this.buffer[this.length++] = kind;
    this.varint(value.byteLength);
    this.raw(Buffer.from(value.buffer, value.byteOffset, value.byteLength));
  }

  private writeHead(tag: number, count: number): void {
    this.reserve(11);
    this.buffer[this.length++] = tag;
    this.varint(count);
  }

  private writeByte(byte: number): void {
    this.reserve(1);
    this.buffer[this.length++] = byte;
  }

  private raw(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** Seven bits a byte, lowest first; up to 2^53. Space must have been reserved. */
  private varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.buffer[this.length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.buffer[this.length++] = rest;
  }

  private reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.buffer.length) return;
    if (needed > SECTION_BYTES_MAX) {
      throw new MillraceError(
        'TOO_LARGE',
        `one key group's or item's state is larger than ${SECTION_BYTES_MAX} bytes`,
        {
          hint: 'raise maxParallelism (more, smaller key groups) or keep less state in one key',
        },
      );
    }
    const grown = Buffer.allocUnsafe(Math.min(SECTION_BYTES_MAX, Math.max(needed, this.buffer.length * 2)));
    grown.set(this.buffer.subarray(0, this.length));
    this.buffer = grown;
  }
}

/** Below the limit of one Buffer on every supported Node. */
const SECTION_BYTES_MAX = 2 ** 31 - 1;

export function isPlainObject(value: object): value is Record<string, unknown> {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return true;
  // `Object.prototype` of another realm, when a program runs in a context of its own.
  return Object.getPrototypeOf(prototype) === null;
}

/** Assigning `__proto__` would change the prototype instead of adding a field. */
export function setField(target: Record<string, unknown>, field: string, value: unknown): void {
  if (field === '__proto__') {
    Object.defineProperty(target, field, { value, enumerable: true, configurable: true, writable: true });
  } else {
    target[field] = value;
  }
}

export function unsupportedValue(value: unknown): InvalidArgumentError {
  const name: unknown = typeof value === 'object' ? value?.constructor?.name : undefined;
  const what = typeof name === 'string' && name !== '' ? `an instance of ${name}` : `a ${typeof value}`;
  return new InvalidArgumentError(`${what} cannot be kept in state`, {
    hint: 'state holds structured data: strings, numbers, bigints, booleans, null, undefined, Date, typed arrays, and plain arrays, objects, Maps and Sets of those',
  });
}

export function tooDeep(): InvalidArgumentError {
  return new InvalidArgumentError(
    `a value in state is nested deeper than ${VALUE_DEPTH_MAX} levels or refers to itself`,
  );
}

function sameFields(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length || b.length === 0) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
