import { crc32 } from 'node:zlib';
import { CorruptError } from '../kernel/errors.ts';

/**
 * One frame format on every transport.
 *
 *   byte 0      kind
 *   byte 1      codec id (records only)
 *   bytes 2-3   zero
 *   bytes 4-7   payload length   (numbers little-endian)
 *   bytes 8-11  channel
 *   bytes 12-15 sequence number within the channel, for messages that take a credit
 *   bytes 16-19 CRC-32 of the payload
 *   bytes 20-23 CRC-32 of bytes 0-19
 *
 * The header has a checksum of its own because its length is believed before the payload is there: a
 * receiver that waits for more bytes than were sent would wait for ever, and its sender for credits.
 */
export const FRAME_KINDS = [
  'records',
  'barrier',
  'watermark',
  'end-of-data',
  'end-of-stream',
  'credit',
  'handshake',
  'error',
  'latency-marker',
] as const;
export type FrameKind = (typeof FRAME_KINDS)[number];

export interface Frame {
  readonly kind: FrameKind;
  readonly channel: number;
  readonly sequence: number;
  readonly codec: number;
  readonly payload: Uint8Array;
  /** Nobody else holds the payload: a transport between threads may take it away instead of copying it. */
  readonly exclusive?: boolean;
}

export interface FrameHeader extends Omit<Frame, 'payload'> {
  readonly payloadBytes: number;
  readonly payloadChecksum: number;
}

export const FRAME_HEADER_BYTES = 24;
const CHECKED_HEADER_BYTES = 20;
export const NO_PAYLOAD: Uint8Array = new Uint8Array(0);

const KIND_CODES: Readonly<Record<FrameKind, number>> = Object.fromEntries(
  FRAME_KINDS.map((kind, i) => [kind, i + 1]),
) as Record<FrameKind, number>;

export function encodeFrameHeader(frame: Frame): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  header[0] = KIND_CODES[frame.kind];
  header[1] = frame.codec;
  header.writeUInt16LE(0, 2);
  header.writeUInt32LE(frame.payload.length, 4);
  header.writeUInt32LE(frame.channel, 8);
  header.writeUInt32LE(frame.sequence, 12);
  header.writeUInt32LE(crc32(frame.payload), 16);
  header.writeUInt32LE(crc32(header.subarray(0, CHECKED_HEADER_BYTES)), CHECKED_HEADER_BYTES);
  return header;
}

/** Throws `CORRUPT` for what no peer of this version sends, before any memory is taken for the payload. */
export function decodeFrameHeader(header: Buffer, payloadBytesMax: number): FrameHeader {
  if (header.readUInt32LE(CHECKED_HEADER_BYTES) !== crc32(header.subarray(0, CHECKED_HEADER_BYTES))) {
    throw new CorruptError('received a frame header whose checksum does not match');
  }
  const kind = FRAME_KINDS[(header[0] ?? 0) - 1];
  if (kind === undefined || header.readUInt16LE(2) !== 0) {
    throw new CorruptError('received bytes that are not a frame');
  }
  const payloadBytes = header.readUInt32LE(4);
  if (payloadBytes > payloadBytesMax) {
    throw new CorruptError(`received a ${kind} frame of ${payloadBytes} bytes, over the limit of ${payloadBytesMax}`);
  }
  return {
    kind,
    codec: header[1] ?? 0,
    payloadBytes,
    channel: header.readUInt32LE(8),
    sequence: header.readUInt32LE(12),
    payloadChecksum: header.readUInt32LE(16),
  };
}

export function verifyPayload(header: FrameHeader, payload: Uint8Array): void {
  if (header.payloadChecksum !== crc32(payload)) {
    throw new CorruptError(`received a ${header.kind} frame of ${payload.length} bytes whose checksum does not match`);
  }
}
