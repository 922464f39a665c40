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
 *   bytes 16-19 CRC-32 of bytes 0-15 and the payload
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
] as const;
export type FrameKind = (typeof FRAME_KINDS)[number];

export interface Frame {
  readonly kind: FrameKind;
  readonly channel: number;
  readonly sequence: number;
  readonly codec: number;
  readonly payload: Uint8Array;
}

export interface FrameHeader extends Omit<Frame, 'payload'> {
  readonly payloadBytes: number;
}

export const FRAME_HEADER_BYTES = 20;
const CHECKED_HEADER_BYTES = 16;
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
  header.writeUInt32LE(checksum(header, frame.payload), 16);
  return header;
}

/** Throws `CORRUPT` for what no peer of this version sends, before any memory is taken for the payload. */
export function decodeFrameHeader(header: Buffer, payloadBytesMax: number): FrameHeader {
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
  };
}

export function verifyFrame(header: Buffer, payload: Uint8Array): void {
  if (header.readUInt32LE(16) !== checksum(header, payload)) {
    throw new CorruptError('received a frame whose checksum does not match');
  }
}

function checksum(header: Buffer, payload: Uint8Array): number {
  const ofHeader = crc32(header.subarray(0, CHECKED_HEADER_BYTES));
  return payload.length === 0 ? ofHeader : crc32(payload, ofHeader);
}
