import { expect, test } from 'vitest';
import type { RecordsMessage } from '../exchange/channel-message.ts';
import { columnarCodec } from '../exchange/columnar/columnar-codec.ts';
import type { RecordCodec } from '../exchange/record-codec.ts';
import { RECORD_CODECS } from '../exchange/record-codecs.ts';
import { rowCodec } from '../exchange/row-codec.ts';
import { CorruptError } from '../kernel/errors.ts';
import { BatchReader } from './batch-reader.ts';
import { newElement } from './time/element.ts';
import { timedCodec } from './time/timed-codec.ts';

const CHANNEL = 'producer subtask 3 of edge a-b-0 at 10.0.0.7:41234';

function reader(): BatchReader {
  return new BatchReader(RECORD_CODECS, 'Sum -> Sink (2/4)');
}

function batchOf(codec: RecordCodec, records: readonly unknown[]): RecordsMessage {
  const encoder = codec.createEncoder();
  for (const record of records) encoder.append(record);
  return { kind: 'records', codec: codec.id, payload: encoder.finish(), records: records.length };
}

test('a task reads what any codec wrote, whichever its own worker writes with', () => {
  const records = [{ word: 'to', count: 1 }, { word: 'be', count: -0 }, 'irregular', undefined];
  const one = reader();
  for (const codec of [rowCodec, columnarCodec(), columnarCodec({ codeGeneration: 'never' })]) {
    expect(one.read(batchOf(codec, records), CHANNEL)).toEqual({ records, timestamps: undefined });
    const element = { ...newElement(), timestampMs: 5 };
    const { records: read, timestamps } = one.read(batchOf(timedCodec(codec, element), records), CHANNEL);
    expect(read).toEqual(records);
    expect([...(timestamps ?? [])]).toEqual([5, 5, 5, 5]);
  }
});

test('a damaged batch says which task read it, from which channel, and what is wrong', () => {
  const good = batchOf(columnarCodec(), [{ word: 'to', count: 1 }]);
  const cut = { ...good, payload: good.payload.subarray(0, good.payload.length - 9) };
  const read = () => reader().read(cut, CHANNEL);
  expect(read).toThrow(CorruptError);
  expect(read).toThrow(
    `Sum -> Sink (2/4): ${CHANNEL} sent a batch (${cut.payload.length} bytes for 1 records) that is`,
  );
  expect(() => reader().read({ ...good, codec: 77 }, CHANNEL)).toThrow('record codec 77');
});
