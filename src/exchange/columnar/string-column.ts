import { BYTES_OF, type Column, copyInto, type NumberWidth, PACKED } from './columns.ts';
import type { PayloadWriter } from './payload-writer.ts';

/** Up to this many characters on average, copying them one by one is the quicker way. */
const SHORT_CHARS = 10;
/** Of one string among short ones: its length is kept in a byte. */
const SHORT_CHARS_MAX = 255;

/**
 * All strings of a batch as one, and the length of each.
 *
 * Short strings are copied character by character as they come. Longer ones are kept until they are
 * written, and joined by `+=` on a local variable: V8 makes a rope of it and copies whole strings when
 * it is first looked at. (`join` is slower, and so is a rope that grows in a field, whose every new end
 * the garbage collector wants to hear of.) Which way a batch begins is what suited the one before.
 */
export class StringColumn implements Column {
  length = 0;
  private isShort = true;
  /** Short: Latin-1 characters and lengths. */
  private chars = new Uint8Array(0);
  private charsEnd = 0;
  private lengths = new Uint8Array(0);
  /** Not short. */
  private readonly strings: string[] = [];
  private rows = 0;

  grow(rows: number): void {
    this.rows = rows;
    this.fit();
  }

  put(row: number, value: string): void {
    if (!this.isShort) {
      this.strings[row] = value;
      return;
    }
    const length = value.length;
    if (this.charsEnd + length > this.chars.length) this.growChars(length);
    const { chars, charsEnd } = this;
    let used = 0;
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      used |= code;
      chars[charsEnd + i] = code;
    }
    if (used > 0xff || length > SHORT_CHARS_MAX) {
      this.keepStrings(row);
      this.strings[row] = value;
      return;
    }
    this.lengths[row] = length;
    this.charsEnd = charsEnd + length;
  }

  write(writer: PayloadWriter, count: number): void {
    if (this.isShort) {
      writer.writeUint32(PACKED.latin1 | (PACKED.int8 << 8));
      writer.writeUint32(count);
      writer.writeUint32(this.charsEnd);
      writer.writeBytes(this.lengths.subarray(0, count));
      writer.writeBytes(this.chars.subarray(0, this.charsEnd));
      writer.align();
      this.isShort = this.charsEnd <= count * SHORT_CHARS;
    } else this.writeStrings(writer, count);
  }

  clear(count: number): void {
    // Lets go of the strings.
    if (this.strings.length > 0) this.strings.fill('', 0, count);
    this.fit();
    this.charsEnd = 0;
    this.length = 0;
  }

  private writeStrings(writer: PayloadWriter, count: number): void {
    writer.reserve(HEAD_OF_STRINGS + count * 4);
    const start = writer.position + HEAD_OF_STRINGS;
    const { strings } = this;
    const { uint8 } = writer;
    let text = '';
    let used = 0;
    for (let i = 0; i < count; i++) {
      const string = strings[i] as string;
      text += string;
      used |= string.length;
      uint8[start + i] = string.length;
    }
    const width = used < 0x100 ? PACKED.int8 : used < 0x10000 ? PACKED.int16 : PACKED.int32;
    if (width !== PACKED.int8) this.writeWideLengths(writer, { start, count, width });
    const wide = BEYOND_LATIN1.test(text);
    writer.writeUint32((wide ? PACKED.utf16 : PACKED.latin1) | (width << 8));
    writer.writeUint32(count);
    writer.writeUint32(text.length);
    writer.position = start + count * BYTES_OF[width];
    // UTF-16 rather than UTF-8: lengths stay those of the strings, and lone surrogates survive.
    writer.writeText(text, wide ? 'utf16le' : 'latin1');
    writer.align();
    this.isShort = !wide && width === PACKED.int8 && text.length <= count * SHORT_CHARS;
  }

  private writeWideLengths(
    writer: PayloadWriter,
    { start, count, width }: { readonly start: number; readonly count: number; readonly width: NumberWidth },
  ): void {
    const { strings } = this;
    const out = width === PACKED.int16 ? writer.uint16 : writer.uint32;
    const at = start / BYTES_OF[width];
    for (let i = 0; i < count; i++) out[at + i] = (strings[i] as string).length;
  }

  /** The short strings so far, `rows` of them, turn out to be among others. */
  private keepStrings(rows: number): void {
    const text = Buffer.from(this.chars.buffer, 0, this.charsEnd).toString('latin1');
    this.isShort = false;
    this.fit();
    let at = 0;
    for (let i = 0; i < rows; i++) {
      const end = at + (this.lengths[i] as number);
      this.strings[i] = text.slice(at, end);
      at = end;
    }
  }

  /** Makes room in the present way for all rows. */
  private fit(): void {
    if (this.isShort) {
      if (this.lengths.length < this.rows) this.lengths = copyInto(new Uint8Array(this.rows), this.lengths);
      return;
    }
    // Filled, so that it stays an array without holes.
    while (this.strings.length < this.rows) this.strings.push('');
  }

  private growChars(more: number): void {
    this.chars = copyInto(new Uint8Array((this.charsEnd + more) * 2), this.chars);
  }
}

const HEAD_OF_STRINGS = 12;

/** V8 answers this at once for strings that it keeps with one byte per character. */
const BEYOND_LATIN1 = /[\u0100-\uffff]/;
