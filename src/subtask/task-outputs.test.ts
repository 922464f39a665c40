import { expect, test } from 'vitest';
import type { ChannelMessage } from '../exchange/channel-message.ts';
import { recordCodec } from '../exchange/record-codecs.ts';
import { Subpartition } from '../exchange/subpartition.ts';
import { asOperatorId } from '../kernel/ids.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { IoMeter } from './io-meter.ts';
import { type BatchLimits, OutputEdge } from './output-edge.ts';
import { TaskOutputs } from './task-outputs.ts';

const LIMITS: BatchLimits = { batchBytes: 1_000, batchRecords: 100, frameBytesMax: 10_000 };
const MARKER = { markedWallMs: 5, sourceId: asOperatorId('1'.repeat(32)), sourceSubtask: 0 };

function setUp(bufferTimeoutMs: number, limits: Partial<BatchLimits> = {}) {
  const clock = new ManualClock();
  const failures: unknown[] = [];
  const outputs = new TaskOutputs({
    clock,
    bufferTimeoutMs,
    wake: () => undefined,
    fail: (error) => void failures.push(error),
  });
  const subpartitions = [0, 1].map(() => new Subpartition('test', 4, outputs));
  let next = 0;
  const edge = new OutputEdge({
    edgeId: 'e',
    site: { name: 'Map', position: 0, chainLength: 1, taskName: 'Map (1/1)' },
    select: () => next++ % 2,
    subpartitions,
    codec: recordCodec('columnar'),
    limits: { ...LIMITS, ...limits },
    meter: new IoMeter(),
    onBuffered: () => outputs.onBuffered(),
  });
  outputs.add(edge);
  const arrived = (subpartition: number): string[] => {
    const seen: string[] = [];
    const describe = (m: ChannelMessage) => (m.kind === 'records' ? `${m.records} records` : m.kind);
    for (let m = subpartitions[subpartition]?.poll(); m !== undefined; m = subpartitions[subpartition]?.poll()) {
      seen.push(describe(m));
    }
    return seen;
  };
  return { clock, outputs, edge, arrived, failures };
}

test('a record waits in its buffer until the timeout, and no longer', async () => {
  const { clock, edge, arrived } = setUp(20);
  edge.emit('a');
  await clock.advance(10);
  edge.emit('b');
  edge.emit('c');
  expect([arrived(0), arrived(1)]).toEqual([[], []]);
  await clock.advance(10);
  expect([arrived(0), arrived(1)]).toEqual([['2 records'], ['1 records']]);
});

test('with a timeout of -1 only full buffers leave, and what must precede a barrier', async () => {
  const { clock, outputs, edge, arrived } = setUp(-1);
  for (let i = 0; i < 202; i++) edge.emit(i);
  await clock.advance(1_000_000);
  expect([arrived(0), arrived(1)]).toEqual([['100 records'], ['100 records']]);
  const options = { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 } as const;
  outputs.barrier({ checkpointId: 1, timestampMs: 0, options }, false);
  expect([arrived(0), arrived(1)]).toEqual([
    ['1 records', 'barrier'],
    ['1 records', 'barrier'],
  ]);
});

test('buffers leave when they have the bytes, however few records those are', () => {
  const { edge, arrived } = setUp(-1);
  edge.emit('x'.repeat(600));
  edge.emit('y');
  expect(arrived(0)).toEqual([]);
  edge.emit('x'.repeat(600));
  expect([arrived(0), arrived(1)]).toEqual([['2 records'], []]);
});

test('a full queue tells the task to wait, and what has gathered leaves when there is room', async () => {
  const { clock, outputs, edge, arrived } = setUp(20, { batchRecords: 1 });
  for (let i = 0; i < 8; i++) edge.emit(i);
  expect(outputs.available).toBe(false);
  expect(arrived(0)).toHaveLength(4);
  expect(outputs.available).toBe(false);
  expect(arrived(1)).toHaveLength(4);
  expect(outputs.available).toBe(true);
  await clock.advance(100);
  expect([arrived(0), arrived(1)]).toEqual([[], []]);
});

test('a latency marker goes to one consumer, another one each time, behind the records that wait for it', async () => {
  const { clock, outputs, edge, arrived } = setUp(20);
  outputs.mark(MARKER);
  expect([arrived(0), arrived(1)]).toEqual([[], ['latency-marker']]);
  edge.emit('a');
  outputs.mark(MARKER);
  expect([arrived(0), arrived(1)]).toEqual([[], []]);
  await clock.advance(20);
  expect([arrived(0), arrived(1)]).toEqual([['1 records', 'latency-marker'], []]);
});
