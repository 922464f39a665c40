import { decodeFrameHeader, FRAME_HEADER_BYTES, type Frame, type FrameHeader, verifyPayload } from './frame.ts';

/**
 * Cuts a byte stream into frames. A payload that lies inside one chunk is handed out without a copy;
 * one that spans chunks is gathered into a buffer of its final size, which the limit bounds.
 */
export class FrameReader {
  private readonly headerBytes = Buffer.alloc(FRAME_HEADER_BYTES);
  private headerFilled = 0;
  private header: FrameHeader | undefined;
  private payload: Buffer | undefined;
  private payloadFilled = 0;

  constructor(
    private readonly payloadBytesMax: number,
    private readonly onFrame: (frame: Frame) => void,
  ) {}

  /** A frame has begun and not ended: a stream must not end here. */
  get midFrame(): boolean {
    return this.header !== undefined || this.headerFilled > 0;
  }

  /** Throws `CORRUPT`; the stream is of no use after that. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      at = this.header === undefined ? this.takeHeader(chunk, at) : this.takePayload(this.header, chunk, at);
    }
  }

  private takeHeader(chunk: Buffer, from: number): number {
    const taken = Math.min(FRAME_HEADER_BYTES - this.headerFilled, chunk.length - from);
    chunk.copy(this.headerBytes, this.headerFilled, from, from + taken);
    this.headerFilled += taken;
    if (this.headerFilled === FRAME_HEADER_BYTES) {
      const header = decodeFrameHeader(this.headerBytes, this.payloadBytesMax);
      if (header.payloadBytes === 0) this.emit(header, Buffer.alloc(0));
      else this.header = header;
    }
    return from + taken;
  }

  private takePayload(header: FrameHeader, chunk: Buffer, from: number): number {
    const available = chunk.length - from;
    if (this.payload === undefined && available >= header.payloadBytes) {
      const end = from + header.payloadBytes;
      this.emit(header, chunk.subarray(from, end));
      return end;
    }
    this.payload ??= Buffer.allocUnsafeSlow(header.payloadBytes);
    const taken = Math.min(header.payloadBytes - this.payloadFilled, available);
    chunk.copy(this.payload, this.payloadFilled, from, from + taken);
    this.payloadFilled += taken;
    if (this.payloadFilled === header.payloadBytes) this.emit(header, this.payload);
    return from + taken;
  }

  private emit(header: FrameHeader, payload: Buffer): void {
    verifyPayload(header, payload);
    this.header = undefined;
    this.headerFilled = 0;
    this.payload = undefined;
    this.payloadFilled = 0;
    this.onFrame({
      kind: header.kind,
      codec: header.codec,
      channel: header.channel,
      sequence: header.sequence,
      payload,
    });
  }
}
