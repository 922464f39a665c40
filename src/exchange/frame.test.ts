import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CorruptError, UnavailableError } from '../kernel/errors.ts';
import { asOperatorId } from '../kernel/ids.ts';
import type { ChannelMessage } from './channel-message.ts';
import { encodeFrameHeader, type Frame, FRAME_KINDS } from './frame.ts';
import { FrameReader } from './frame-reader.ts';
import {
  creditFrame,
  decodeCredit,
  decodeError,
  decodeHandshake,
  errorFrame,
  frameToMessage,
  type Handshake,
  handshakeFrame,
  messageToFrame,
} from './message-frames.ts';

const bytesOf = (frame: Frame) => Buffer.concat([encodeFrameHeader(frame), frame.payload]);

function read(chunks: readonly Buffer[], limit = 1_000_000): Frame[] {
  const frames: Frame[] = [];
  const reader = new FrameReader(limit, (frame) => frames.push({ ...frame, payload: Buffer.from(frame.payload) }));
  for (const chunk of chunks) reader.push(chunk);
  return frames;
}

const frames = fc.array(
  fc.record({
    kind: fc.constantFrom(...FRAME_KINDS),
    channel: fc.nat(0xffffffff),
    sequence: fc.nat(0xffffffff),
    codec: fc.nat(255),
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
  { maxLength: 10 },
);

test('frames come out of a byte stream as they went in, wherever it is cut', () => {
  fc.assert(
    fc.property(frames, fc.array(fc.nat(500), { maxLength: 20 }), (sent, cuts) => {
      const stream = Buffer.concat(sent.map(bytesOf));
      const chunks: Buffer[] = [];
      let at = 0;
      for (const cut of [...cuts, stream.length]) {
        chunks.push(stream.subarray(at, at + cut));
        at = Math.min(stream.length, at + cut);
      }
      expect(read(chunks)).toEqual(sent);
    }),
  );
});

test('a changed bit is CORRUPT', () => {
  const frame: Frame = { kind: 'records', channel: 3, sequence: 9, codec: 1, payload: Buffer.from('some payload') };
  const good = bytesOf(frame);
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bad = Buffer.from(good);
    bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(() => read([bad])).toThrow(CorruptError);
  }
});

test('a changed bit of a header is found before the payload is there, or a receiver would wait for what was never sent', () => {
  const header = encodeFrameHeader({ kind: 'records', channel: 3, sequence: 9, codec: 1, payload: Buffer.alloc(100) });
  for (let bit = 0; bit < header.length * 8; bit++) {
    const bad = Buffer.from(header);
    bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(() => read([bad])).toThrow(/header|not a frame/);
  }
});

test('a length over the limit is refused before its payload arrives', () => {
  const header = encodeFrameHeader({
    kind: 'records',
    channel: 1,
    sequence: 1,
    codec: 1,
    payload: Buffer.alloc(1_001),
  });
  expect(() => read([header], 1_000)).toThrow('over the limit of 1000');
});

test('messages and control payloads survive the wire', () => {
  const options = {
    kind: 'SAVEPOINT',
    aligned: true,
    alignedTimeoutMs: 1.5,
    full: true,
    stop: 'DRAIN',
    location: 'c/savepoints/ä/',
  } as const;
  const messages: ChannelMessage[] = [
    { kind: 'records', codec: 1, payload: Buffer.from([2, 0, 0, 0, 5, 6]), records: 2 },
    { kind: 'barrier', barrier: { checkpointId: 2 ** 40 + 1, timestampMs: 1_700_000_000_000.5, options } },
    { kind: 'barrier', barrier: { checkpointId: 3, timestampMs: 0, options }, overtook: true },
    { kind: 'watermark', timestampMs: -1 },
    {
      kind: 'latency-marker',
      marker: { markedWallMs: 1_700_000_000_000, sourceId: asOperatorId('e'.repeat(32)), sourceSubtask: 7 },
    },
    { kind: 'end-of-data' },
    { kind: 'end-of-data', drained: true },
    { kind: 'end-of-stream' },
  ];
  for (const message of messages) {
    const [frame] = read([bytesOf(messageToFrame(message, 5, 6))]);
    expect(frame).toMatchObject({ channel: 5, sequence: 6 });
    expect(frameToMessage(frame as Frame)).toEqual(message);
  }
  expect(decodeCredit(creditFrame(1, 77))).toBe(77);
  const error = decodeError(errorFrame(1, new UnavailableError('gone', { hint: 'wait' })));
  expect(error).toMatchObject({ code: 'UNAVAILABLE', message: 'gone', hint: 'wait' });
  const handshake: Handshake = {
    jobId: 'a'.repeat(32),
    deployment: '7-1',
    edgeId: 'e',
    producerAttempt: 'p',
    producerSubtask: 0,
    subpartition: 1,
    credits: 4,
    consumer: 'c',
  };
  expect(decodeHandshake(handshakeFrame(1, handshake))).toEqual(handshake);
  expect(() => decodeHandshake(handshakeFrame(1, { ...handshake, credits: 0 }))).toThrow('malformed handshake');
});
