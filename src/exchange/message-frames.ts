import { z } from 'zod';
import { errorInfoSchema } from '../contracts/schemas.ts';
import { CorruptError, fromErrorInfo, type MillraceError, toErrorInfo } from '../kernel/errors.ts';
import { isOperatorId } from '../kernel/ids.ts';
import { assert, unreachable } from '../kernel/assert.ts';
import type { BarrierMessage, ChannelMessage, CheckpointBarrier, LatencyMarker } from './channel-message.ts';
import { type Frame, NO_PAYLOAD } from './frame.ts';

/** The payloads of frames other than records: fixed binary where they are frequent, JSON where they are rare. */

/** Without the location at its end. */
const BARRIER_BYTES = 26;
const DRAINED = Uint8Array.of(1);
/** Without the operator at its end. */
const MARKER_BYTES = 12;
const ALIGNED = 1;
const FULL = 2;
const SUSPEND = 4;
const DRAIN = 8;
const OVERTOOK = 16;

export function messageToFrame(message: ChannelMessage, channel: number, sequence: number): Frame {
  switch (message.kind) {
    case 'records':
      assert(message.copies === undefined, 'copies of records stay in their thread');
      return {
        kind: 'records',
        channel,
        sequence,
        codec: message.codec,
        payload: message.payload,
        exclusive: message.shared !== true,
      };
    case 'barrier':
      return { kind: 'barrier', channel, sequence, codec: 0, payload: encodeBarrier(message) };
    case 'watermark': {
      const payload = Buffer.alloc(8);
      payload.writeDoubleLE(message.timestampMs);
      return { kind: 'watermark', channel, sequence, codec: 0, payload };
    }
    case 'latency-marker':
      return { kind: 'latency-marker', channel, sequence, codec: 0, payload: encodeMarker(message.marker) };
    case 'end-of-data':
      return { kind: 'end-of-data', channel, sequence, codec: 0, payload: message.drained ? DRAINED : NO_PAYLOAD };
    case 'end-of-stream':
      return { kind: 'end-of-stream', channel, sequence, codec: 0, payload: NO_PAYLOAD };
    default:
      return unreachable(message);
  }
}

/** The message of a frame that takes a credit; undefined for `credit`, `handshake` and `error`. */
export function frameToMessage(frame: Frame): ChannelMessage | undefined {
  switch (frame.kind) {
    case 'records':
      if (frame.payload.length < 4) throw new CorruptError('a records frame is too short');
      return { kind: 'records', codec: frame.codec, payload: frame.payload, records: bufferOf(frame).readUInt32LE(0) };
    case 'barrier':
      return decodeBarrier(frame);
    case 'watermark':
      return { kind: 'watermark', timestampMs: bufferOf(frame, 8).readDoubleLE() };
    case 'latency-marker':
      return { kind: 'latency-marker', marker: decodeMarker(frame) };
    case 'end-of-data':
      return frame.payload.length === 0 ? { kind: 'end-of-data' } : { kind: 'end-of-data', drained: true };
    case 'end-of-stream':
      return { kind: 'end-of-stream' };
    case 'credit':
    case 'handshake':
    case 'error':
      return undefined;
    default:
      return unreachable(frame.kind);
  }
}

function encodeMarker({ markedWallMs, sourceId, sourceSubtask }: LatencyMarker): Uint8Array {
  const payload = Buffer.alloc(MARKER_BYTES + sourceId.length);
  payload.writeDoubleLE(markedWallMs, 0);
  payload.writeUInt32LE(sourceSubtask, 8);
  payload.write(sourceId, MARKER_BYTES, 'latin1');
  return payload;
}

function decodeMarker(frame: Frame): LatencyMarker {
  const payload = bufferOf(frame);
  const sourceId = payload.toString('latin1', MARKER_BYTES);
  if (!isOperatorId(sourceId)) throw new CorruptError('a latency marker names no operator');
  return { markedWallMs: payload.readDoubleLE(0), sourceSubtask: payload.readUInt32LE(8), sourceId };
}

function encodeBarrier({ barrier, overtook }: BarrierMessage): Uint8Array {
  const { checkpointId, timestampMs, options } = barrier;
  const location = Buffer.from(options.location ?? '', 'utf8');
  const payload = Buffer.alloc(BARRIER_BYTES + location.length);
  payload.writeDoubleLE(checkpointId, 0);
  payload.writeDoubleLE(timestampMs, 8);
  payload.writeDoubleLE(options.alignedTimeoutMs, 16);
  payload[24] = options.kind === 'SAVEPOINT' ? 1 : 0;
  payload[25] =
    (options.aligned ? ALIGNED : 0) |
    (options.full === true ? FULL : 0) |
    (overtook === true ? OVERTOOK : 0) |
    (options.stop === 'SUSPEND' ? SUSPEND : options.stop === 'DRAIN' ? DRAIN : 0);
  location.copy(payload, BARRIER_BYTES);
  return payload;
}

function decodeBarrier(frame: Frame): BarrierMessage {
  const payload = bufferOf(frame);
  if (payload.length < BARRIER_BYTES) throw new CorruptError('a barrier frame is too short');
  const flags = payload[25] ?? 0;
  const location = payload.toString('utf8', BARRIER_BYTES);
  const barrier: CheckpointBarrier = {
    checkpointId: payload.readDoubleLE(0),
    timestampMs: payload.readDoubleLE(8),
    options: {
      kind: payload[24] === 1 ? 'SAVEPOINT' : 'CHECKPOINT',
      aligned: (flags & ALIGNED) !== 0,
      alignedTimeoutMs: payload.readDoubleLE(16),
      ...((flags & FULL) === 0 ? {} : { full: true }),
      ...((flags & SUSPEND) === 0 ? {} : { stop: 'SUSPEND' as const }),
      ...((flags & DRAIN) === 0 ? {} : { stop: 'DRAIN' as const }),
      ...(location === '' ? {} : { location }),
    },
  };
  return { kind: 'barrier', barrier, ...((flags & OVERTOOK) === 0 ? {} : { overtook: true }) };
}

export function creditFrame(channel: number, credits: number): Frame {
  const payload = Buffer.alloc(4);
  payload.writeUInt32LE(credits);
  return { kind: 'credit', channel, sequence: 0, codec: 0, payload };
}

export function decodeCredit(frame: Frame): number {
  return bufferOf(frame, 4).readUInt32LE();
}

/** Which output a consumer wants to read. */
const handshakeSchema = z.object({
  jobId: z.string().max(64),
  deployment: z.string().regex(/^[0-9]{1,20}-[0-9]{1,10}$/),
  edgeId: z.string().max(200),
  producerAttempt: z.string().max(64),
  producerSubtask: z.number().int().nonnegative(),
  subpartition: z.number().int().nonnegative(),
  /** Messages that the producer may send before the first is processed. */
  credits: z.number().int().min(1).max(65_536),
  /** Who asks, for the producer's log. */
  consumer: z.string().max(300),
});
export type Handshake = z.infer<typeof handshakeSchema>;

export function handshakeFrame(channel: number, handshake: Handshake): Frame {
  return { kind: 'handshake', channel, sequence: 0, codec: 0, payload: Buffer.from(JSON.stringify(handshake)) };
}

export function decodeHandshake(frame: Frame): Handshake {
  const parsed = handshakeSchema.safeParse(parseJson(frame, 'handshake'));
  if (!parsed.success) throw new CorruptError(`received a malformed handshake: ${parsed.error.message}`);
  return parsed.data;
}

/** The producer's yes to a handshake. */
export function acceptedFrame(channel: number): Frame {
  return { kind: 'handshake', channel, sequence: 0, codec: 0, payload: NO_PAYLOAD };
}

/** Ends a channel from either side. Stacks stay home: they are long and name the other process's files. */
export function errorFrame(channel: number, error: Error): Frame {
  const { code, message, hint } = toErrorInfo(error);
  const info = {
    code,
    message: message.slice(0, 8_000),
    ...(hint === undefined ? {} : { hint: hint.slice(0, 2_000) }),
  };
  return { kind: 'error', channel, sequence: 0, codec: 0, payload: Buffer.from(JSON.stringify(info)) };
}

export function decodeError(frame: Frame): MillraceError {
  const parsed = errorInfoSchema.safeParse(parseJson(frame, 'error'));
  if (!parsed.success) throw new CorruptError(`received a malformed error: ${parsed.error.message}`);
  return fromErrorInfo(parsed.data);
}

function parseJson(frame: Frame, what: string): unknown {
  try {
    return JSON.parse(bufferOf(frame).toString('utf8'));
  } catch (error) {
    throw new CorruptError(`received a malformed ${what}`, { cause: error });
  }
}

function bufferOf(frame: Frame, expectedBytes?: number): Buffer {
  const { payload } = frame;
  if (expectedBytes !== undefined && payload.length !== expectedBytes) {
    throw new CorruptError(`a ${frame.kind} frame has ${payload.length} bytes instead of ${expectedBytes}`);
  }
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
}
