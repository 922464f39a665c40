const INITIAL_BYTES = 64 * 1024;
/** A buffer that one huge batch made grow is not kept. */
const KEPT_BYTES_MAX = 1024 * 1024;

/**
 * An aligned buffer seen as every width of number. Batches are put together in one that the whole
 * thread shares: nothing of a batch is in it before or after `finish`.
 */
export class PayloadWriter {
  bytes: Buffer<ArrayBuffer>;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  float64: Float64Array;
  position = 0;

  constructor() {
    const views = viewsOf(INITIAL_BYTES);
    this.bytes = views.bytes;
    this.int8 = views.int8;
    this.uint8 = views.uint8;
    this.int16 = views.int16;
    this.uint16 = views.uint16;
    this.int32 = views.int32;
    this.uint32 = views.uint32;
    this.float64 = views.float64;
  }

  reserve(bytes: number): void {
    const needed = this.position + bytes;
    if (needed <= this.bytes.length) return;
    const grown = viewsOf(roundUp(Math.max(needed, this.bytes.length * 2)));
    this.bytes.copy(grown.bytes, 0, 0, this.position);
    Object.assign(this, grown);
  }

  /** Positions of columns are multiples of eight, so that their numbers can be read where they lie. */
  align(): void {
    this.reserve(8);
    const end = roundUp(this.position);
    // What the buffer held before must not travel.
    this.uint8.fill(0, this.position, end);
    this.position = end;
  }

  /** At a multiple of four. */
  writeUint32(value: number): void {
    this.reserve(4);
    this.uint32[this.position >> 2] = value;
    this.position += 4;
  }

  writeText(text: string, encoding: 'latin1' | 'utf16le' | 'utf8'): void {
    this.reserve(text.length * 3);
    this.position += this.bytes.write(text, this.position, encoding);
  }

  writeBytes(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.uint8.set(bytes, this.position);
    this.position += bytes.length;
  }

  /** What was written, as bytes that nobody else holds; the writer is empty again. */
  take(): Uint8Array {
    const payload = Buffer.allocUnsafeSlow(this.position);
    this.bytes.copy(payload, 0, 0, this.position);
    this.position = 0;
    if (this.bytes.length > KEPT_BYTES_MAX) Object.assign(this, viewsOf(INITIAL_BYTES));
    return payload;
  }
}

function viewsOf(size: number) {
  const buffer = new ArrayBuffer(size);
  return {
    bytes: Buffer.from(buffer),
    int8: new Int8Array(buffer),
    uint8: new Uint8Array(buffer),
    int16: new Int16Array(buffer),
    uint16: new Uint16Array(buffer),
    int32: new Int32Array(buffer),
    uint32: new Uint32Array(buffer),
    float64: new Float64Array(buffer),
  };
}

export function roundUp(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
