import type { PayloadWriter } from './payload-writer.ts';

/**
 * Where the values of one kind gather. The generated code writes `data` itself; in a dense column,
 * whose position has several kinds, `length` counts, else the rows of the group do.
 *
 * On the wire each column is: a word that says how it is packed, a word that says how large it is,
 * then its data, up to the next multiple of eight bytes.
 */
export interface Column {
  length: number;
  grow(rows: number): void;
  write(writer: PayloadWriter, count: number): void;
  /** Empty again, after `count` entries. */
  clear(count: number): void;
}

/** How numbers are packed: what the narrowest of the batch allows. */
export const PACKED = { int8: 1, int16: 2, int32: 3, float64: 4, bits: 5, latin1: 6, utf16: 7 } as const;

/**
 * Integers of 32 bits as long as there are no others, which are half as dear to gather and to write;
 * floating point from the first other number on.
 */
export class NumberColumn implements Column {
  integers = new Int32Array(0);
  doubles = new Float64Array(0);
  /** All numbers are in `doubles`. */
  isDouble = false;
  length = 0;

  grow(rows: number): void {
    this.integers = copyInto(new Int32Array(rows), this.integers);
    if (this.doubles.length > 0) this.doubles = copyInto(new Float64Array(rows), this.doubles);
  }

  /** Adds the first number that is no integer after `row` integers. */
  widen(row: number, value: number): void {
    const { integers } = this;
    if (this.doubles.length < integers.length) this.doubles = new Float64Array(integers.length);
    for (let i = 0; i < row; i++) this.doubles[i] = integers[i] as number;
    this.doubles[row] = value;
    this.isDouble = true;
  }

  write(writer: PayloadWriter, count: number): void {
    writer.reserve(8 + count * 8);
    const start = writer.position + 8;
    const width = this.isDouble ? PACKED.float64 : widthOf(this.integers, count);
    writer.writeUint32(width);
    writer.writeUint32(count);
    if (this.isDouble) writer.float64.set(this.doubles.subarray(0, count), start >> 3);
    else copyIntegers(writer, this.integers, { start, count, width });
    writer.position = start + count * BYTES_OF[width];
    writer.align();
  }

  clear(): void {
    this.isDouble = false;
    this.length = 0;
  }
}

export type NumberWidth = typeof PACKED.int8 | typeof PACKED.int16 | typeof PACKED.int32 | typeof PACKED.float64;

export const BYTES_OF: Readonly<Record<NumberWidth, number>> = {
  [PACKED.int8]: 1,
  [PACKED.int16]: 2,
  [PACKED.int32]: 4,
  [PACKED.float64]: 8,
};

function widthOf(integers: Int32Array, count: number): NumberWidth {
  let used = 0;
  for (let i = 0; i < count; i++) {
    const integer = integers[i] as number;
    used |= integer ^ (integer >> 31);
  }
  return used < 0x80 ? PACKED.int8 : used < 0x8000 ? PACKED.int16 : PACKED.int32;
}

function copyIntegers(
  writer: PayloadWriter,
  integers: Int32Array,
  { start, count, width }: { readonly start: number; readonly count: number; readonly width: NumberWidth },
): void {
  if (width === PACKED.int8) {
    const { int8 } = writer;
    for (let i = 0; i < count; i++) int8[start + i] = integers[i] as number;
  } else if (width === PACKED.int16) {
    const { int16 } = writer;
    const to = start >> 1;
    for (let i = 0; i < count; i++) int16[to + i] = integers[i] as number;
  } else writer.int32.set(integers.subarray(0, count), start >> 2);
}

export class BigintColumn implements Column {
  data = new BigInt64Array(0);
  length = 0;

  grow(rows: number): void {
    const data = new BigInt64Array(rows);
    data.set(this.data);
    this.data = data;
  }

  write(writer: PayloadWriter, count: number): void {
    writer.reserve(8);
    writer.writeUint32(PACKED.float64);
    writer.writeUint32(count);
    writer.writeBytes(new Uint8Array(this.data.buffer, 0, count * 8));
  }

  clear(): void {
    this.length = 0;
  }
}

/** True and false as a byte each until they are written as a bit each. */
export class BooleanColumn implements Column {
  data = new Uint8Array(0);
  length = 0;

  grow(rows: number): void {
    this.data = copyInto(new Uint8Array(rows), this.data);
  }

  write(writer: PayloadWriter, count: number): void {
    writer.writeUint32(PACKED.bits);
    writer.writeUint32(count);
    writeBits(writer, this.data, { count, one: 1 });
    writer.align();
  }

  clear(): void {
    this.length = 0;
  }
}

/** Which kind each row has; a bit each for two kinds, else a byte. */
export class TagColumn implements Column {
  data = new Uint8Array(0);
  length = 0;
  /** All that may be in `data`, ascending. */
  tags: readonly number[] = [];

  grow(rows: number): void {
    this.data = copyInto(new Uint8Array(rows), this.data);
  }

  write(writer: PayloadWriter, count: number): void {
    const [, one] = this.tags;
    const asBits = this.tags.length === 2 && one !== undefined;
    writer.writeUint32(asBits ? PACKED.bits : PACKED.int8);
    writer.writeUint32(count);
    if (asBits) writeBits(writer, this.data, { count, one });
    else writer.writeBytes(this.data.subarray(0, count));
    writer.align();
  }

  clear(): void {
    this.length = 0;
  }
}

/** A set bit for each row that holds `one`. */
function writeBits(
  writer: PayloadWriter,
  data: Uint8Array,
  { count, one }: { readonly count: number; readonly one: number },
): void {
  const bytes = (count + 7) >> 3;
  writer.reserve(bytes);
  const out = writer.uint8;
  const start = writer.position;
  for (let b = 0; b < bytes; b++) {
    const end = Math.min(count, b * 8 + 8);
    let byte = 0;
    for (let i = b * 8; i < end; i++) if (data[i] === one) byte |= 1 << (i & 7);
    out[start + b] = byte;
  }
  writer.position = start + bytes;
}

export function copyInto<T extends Float64Array | Uint8Array | Int32Array>(grown: T, old: T): T {
  grown.set(old);
  return grown;
}
