import { expect, test } from 'vitest';
import { frameToMessage, messageToFrame } from '../../exchange/message-frames.ts';
import { LocalInputChannel } from '../../exchange/local-channel.ts';
import { rowCodec } from '../../exchange/row-codec.ts';
import { Subpartition } from '../../exchange/subpartition.ts';
import { SeededRandom } from '../../kernel/random.ts';
import { ExactlyOnceAligner } from '../barrier-aligner.ts';
import { InputGate } from '../input-gate.ts';
import { newElement } from './element.ts';
import { createTimedDecoder, timedCodec } from './timed-codec.ts';
import { WatermarkValve } from './watermark-valve.ts';

const CHANNELS = 3;

test.each([1, 2, 3, 4, 5, 6])('seed %i: a watermark overtakes neither a record nor a barrier', (seed) => {
  const random = new SeededRandom(seed);
  const subpartitions = Array.from(
    { length: CHANNELS },
    (_, i) => new Subpartition(`p${i}`, 1_000, { onFull: () => undefined, onAvailable: () => undefined }),
  );
  const gate = new InputGate(CHANNELS, new ExactlyOnceAligner(CHANNELS), () => undefined, { eventTime: true });
  subpartitions.forEach((subpartition, i) => {
    gate.connect(i, new LocalInputChannel(`p${i}`, subpartition, { onData: () => gate.onData(i), onFailed: () => {} }));
  });
  // What each producer sent, as text, and how much of it came before each barrier.
  const sent: string[][] = subpartitions.map(() => []);
  const cuts = new Map<number, number[]>();
  const received: string[][] = subpartitions.map(() => []);
  const barriers = subpartitions.map(() => 0);
  const element = newElement();
  const codec = timedCodec(rowCodec, element);
  const decoder = createTimedDecoder(rowCodec);
  const receive = () => {
    for (let event = gate.next(0); event !== undefined; event = gate.next(0)) {
      if (event.kind === 'records') {
        const records = decoder.decode(event.message.payload);
        for (const [i, record] of records.entries())
          received[event.channel]?.push(`${record}@${decoder.timestamps[i]}`);
        gate.processed(event.channel);
      } else if (event.kind === 'watermark') received[event.channel]?.push(`watermark ${event.timestampMs}`);
      else if (event.kind === 'checkpoint') {
        expect(received.map(({ length }) => length)).toEqual(cuts.get(event.barrier.checkpointId));
      }
      if (random.int(4) === 0) return;
    }
  };
  for (let step = 0; step < 400; step++) {
    const channel = random.int(CHANNELS);
    const target = subpartitions[channel] as Subpartition;
    const what = random.int(6);
    if (what < 2) {
      element.timestampMs = random.int(3) === 0 ? Number.NaN : random.int(1_000);
      const encoder = codec.createEncoder();
      encoder.append(step);
      sent[channel]?.push(`${step}@${element.timestampMs}`);
      target.push({ kind: 'records', codec: codec.id, payload: encoder.finish(), records: 1 });
    } else if (what === 2) {
      const timestampMs = random.int(5) === 0 ? Number.NaN : step;
      sent[channel]?.push(`watermark ${timestampMs}`);
      // As it comes over the network.
      const frame = messageToFrame({ kind: 'watermark', timestampMs }, 0, 0);
      const message = frameToMessage(frame);
      if (message !== undefined) target.push(message);
    } else if (what === 3 && random.int(4) === 0) {
      const checkpointId = (barriers[channel] as number) + 1;
      barriers[channel] = checkpointId;
      const cut = cuts.get(checkpointId) ?? subpartitions.map(() => -1);
      cut[channel] = sent[channel]?.length ?? 0;
      cuts.set(checkpointId, cut);
      const options = { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 } as const;
      target.push({ kind: 'barrier', barrier: { checkpointId, timestampMs: 0, options } });
    } else receive();
  }
  // Every channel gets the barriers that it lacks, or alignment would block for ever.
  const last = Math.max(...barriers);
  subpartitions.forEach((target, channel) => {
    for (let checkpointId = (barriers[channel] as number) + 1; checkpointId <= last; checkpointId++) {
      const cut = cuts.get(checkpointId) as number[];
      cut[channel] = sent[channel]?.length ?? 0;
      const options = { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 } as const;
      target.push({ kind: 'barrier', barrier: { checkpointId, timestampMs: 0, options } });
    }
    target.push({ kind: 'end-of-data' });
    sent[channel]?.push('watermark Infinity');
  });
  for (let i = 0; i < 2_000; i++) receive();
  expect(received).toEqual(sent);
});

test('a batch with timestamps that was cut or mixed up is refused', () => {
  const codec = timedCodec(rowCodec, newElement());
  const encoder = codec.createEncoder();
  for (let i = 0; i < 200; i++) encoder.append({ i });
  expect(encoder.bytes).toBeGreaterThan(200 * 8);
  const payload = encoder.finish();
  const decoder = codec.createDecoder();
  expect(decoder.decode(payload)).toHaveLength(200);
  expect(() => decoder.decode(payload.subarray(0, 900))).toThrow('too short');
  expect(() => decoder.decode(payload.subarray(0, 5))).toThrow('too short');
});

test('the watermark of a task is the least of its active channels, and never goes back', () => {
  const valve = new WatermarkValve(3);
  const mark = (timestampMs: number) => [{ kind: 'watermark', timestampMs }];
  expect(valve.watermark(0, 10)).toEqual([]);
  expect(valve.watermark(1, 20)).toEqual([]);
  expect(valve.watermark(2, 5)).toEqual(mark(5));
  expect(valve.watermark(2, 3)).toEqual([]);
  expect(valve.markIdle(2)).toEqual(mark(10));
  // Back at 7 it counts again, but time does not go back for it.
  expect(valve.watermark(2, 7)).toEqual([]);
  expect(valve.watermark(0, 30)).toEqual([]);
  expect(valve.watermark(2, 25)).toEqual(mark(20));
});

test('when all channels are idle, time goes to the furthest of them, and then nobody waits for the task', () => {
  const valve = new WatermarkValve(2);
  valve.watermark(0, 10);
  valve.watermark(1, 40);
  expect(valve.markIdle(1)).toEqual([]);
  expect(valve.markIdle(0)).toEqual([{ kind: 'watermark', timestampMs: 40 }, { kind: 'idle' }]);
  expect(valve.markIdle(0)).toEqual([]);
  // Awake again, and consumers learn it even before time has moved.
  expect(valve.watermark(0, 11)).toEqual([{ kind: 'watermark', timestampMs: 40 }]);
  expect(valve.watermark(0, 50)).toEqual([{ kind: 'watermark', timestampMs: 50 }]);
});

test('an idle channel that may wake up keeps ended ones from ending time', () => {
  const valve = new WatermarkValve(2);
  valve.watermark(0, 10);
  valve.markIdle(0);
  expect(valve.watermark(1, Number.POSITIVE_INFINITY)).toEqual([
    { kind: 'watermark', timestampMs: 10 },
    { kind: 'idle' },
  ]);
  expect(valve.watermark(0, 60)).toEqual([{ kind: 'watermark', timestampMs: 60 }]);
  expect(valve.watermark(0, Number.POSITIVE_INFINITY)).toEqual([
    { kind: 'watermark', timestampMs: Number.POSITIVE_INFINITY },
  ]);
});
