import { CorruptError } from '../../kernel/errors.ts';
import { BYTES_OF, PACKED } from './columns.ts';
import { roundUp } from './payload-writer.ts';

/** A batch lying at a multiple of eight bytes, so that its numbers can be read where they are. */
export class PayloadReader {
  private readonly bytes: Buffer;
  private position = 0;

  constructor(payload: Uint8Array) {
    // Frames are cut from chunks of a socket at any position.
    const source = payload.byteOffset % 8 === 0 ? payload : new Uint8Array(payload);
    this.bytes = Buffer.from(source.buffer, source.byteOffset, source.byteLength);
  }

  get size(): number {
    return this.bytes.length;
  }

  get remaining(): number {
    return this.bytes.length - this.position;
  }

  readUint32(): number {
    const at = this.advance(4);
    return this.bytes.readUInt32LE(at);
  }

  readBytes(bytes: number): Buffer {
    const at = this.advance(bytes);
    return this.bytes.subarray(at, at + bytes);
  }

  align(): void {
    const next = roundUp(this.position);
    if (next > this.bytes.length) throw cutShort();
    this.position = next;
  }

  readNumbers(count: number): NumberView {
    const packed = this.readHead(count);
    const at = this.advance(count * widthOf(packed)) + this.bytes.byteOffset;
    const { buffer } = this.bytes;
    const numbers =
      packed === PACKED.float64
        ? new Float64Array(buffer, at, count)
        : packed === PACKED.int32
          ? new Int32Array(buffer, at, count)
          : widened(packed === PACKED.int8 ? new Int8Array(buffer, at, count) : new Int16Array(buffer, at, count));
    this.align();
    return numbers;
  }

  readBigints(count: number): BigInt64Array {
    if (this.readHead(count) !== PACKED.float64) throw unknownPacking();
    const at = this.advance(count * 8);
    return new BigInt64Array(this.bytes.buffer, this.bytes.byteOffset + at, count);
  }

  readBooleans(count: number): Uint8Array {
    if (this.readHead(count) !== PACKED.bits) throw unknownPacking();
    const bytes = this.readBits(count, { zero: 0, one: 1 });
    this.align();
    return bytes;
  }

  /** One of `tags` for each row. */
  readTags(count: number, tags: readonly number[]): Uint8Array {
    const packed = this.readHead(count);
    const [zero, one] = tags as readonly [number, number];
    let read: Uint8Array;
    if (packed === PACKED.bits && tags.length === 2) {
      read = this.readBits(count, { zero, one });
    } else if (packed === PACKED.int8) {
      read = this.readBytes(count);
      let allowed = 0;
      for (const tag of tags) allowed |= 1 << tag;
      for (const tag of read) {
        if (tag > 31 || (allowed & (1 << tag)) === 0)
          throw new CorruptError('a batch holds a value of an unknown kind');
      }
    } else throw unknownPacking();
    this.align();
    return read;
  }

  readStrings(count: number): StringsView {
    const head = this.readUint32();
    this.checkCount(count);
    const chars = this.readUint32();
    const packed = head & 0xff;
    const lengths = this.readLengths(count, head >> 8);
    if (packed !== PACKED.latin1 && packed !== PACKED.utf16) throw unknownPacking();
    const wide = packed === PACKED.utf16;
    const bytes = wide ? chars * 2 : chars;
    const at = this.advance(bytes);
    const text = this.bytes.toString(wide ? 'utf16le' : 'latin1', at, at + bytes);
    this.align();
    return { text, lengths };
  }

  private readLengths(count: number, packed: number): StringLengths {
    const width = widthOf(packed);
    if (width > 4) throw unknownPacking();
    const at = this.advance(count * width) + this.bytes.byteOffset;
    const { buffer } = this.bytes;
    if (width === 1) return new Uint8Array(buffer, at, count);
    return width === 2 ? new Uint16Array(buffer, at, count) : new Uint32Array(buffer, at, count);
  }

  private readBits(count: number, { zero, one }: { readonly zero: number; readonly one: number }): Uint8Array {
    const at = this.advance((count + 7) >> 3);
    const { bytes } = this;
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = ((bytes[at + (i >> 3)] as number) & (1 << (i & 7))) !== 0 ? one : zero;
    return out;
  }

  /** How the column is packed. */
  private readHead(count: number): number {
    const packed = this.readUint32();
    this.checkCount(count);
    return packed;
  }

  private checkCount(expected: number): void {
    if (this.readUint32() !== expected) throw new CorruptError('a batch has columns of unequal length');
  }

  /** Moves over `bytes` and gives where they begin. */
  private advance(bytes: number): number {
    const at = this.position;
    if (bytes > this.bytes.length - at) throw cutShort();
    this.position = at + bytes;
    return at;
  }
}

/** 32-bit integers or floating point: generated code then sees two types of array, not four. */
export type NumberView = Int32Array | Float64Array;

export type StringLengths = Uint8Array | Uint16Array | Uint32Array;

export interface StringsView {
  readonly text: string;
  /** Whoever cuts the text must end where it ends. */
  readonly lengths: StringLengths;
}

function widened(narrow: Int8Array | Int16Array): Int32Array {
  // The constructor would do it too, several times slower.
  const wide = new Int32Array(narrow.length);
  for (let i = 0; i < narrow.length; i++) wide[i] = narrow[i] as number;
  return wide;
}

function widthOf(packed: number): number {
  const width = (BYTES_OF as Readonly<Record<number, number>>)[packed];
  if (width === undefined) throw unknownPacking();
  return width;
}

function unknownPacking(): CorruptError {
  return new CorruptError('a batch holds a column in an unknown form');
}

function cutShort(): CorruptError {
  return new CorruptError('a batch of records ends too early');
}
