import { deserialize, serialize } from 'node:v8';
import { Packr } from 'msgpackr';
import { columnarCodec } from '../src/exchange/columnar/columnar-codec.ts';
import type { RecordCodec } from '../src/exchange/record-codec.ts';
import { rowCodec } from '../src/exchange/row-codec.ts';
import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { type Contender, measureRounds, type Measurement, speedup } from './lib/rounds.ts';
import { bids, wordCounts } from './lib/sample-data.ts';

const BATCH_RECORDS = 1_024;
const BATCHES = 16;
/** A turn long enough that the garbage of the contender before does not decide. */
const PASSES = 24;

type Batch = readonly unknown[];

/**
 * Encodes batches into bytes and decodes them again. The baseline does what one would write by hand:
 * the batch as one JSON text, its UTF-8 bytes, and back.
 */
export const codecBench: Benchmark = {
  name: 'codec',
  description: 'encode and decode batches of 1,024 records, against JSON to bytes and back',
  async run({ rounds }, say) {
    const results: BenchResult[] = [];
    for (const { name, records, target } of [
      { name: 'small record', records: wordCounts(BATCHES * BATCH_RECORDS), target: 6 },
      { name: 'pair', records: wordCounts(BATCHES * BATCH_RECORDS).map(({ word, count }) => [word, count]) },
      { name: 'bid', records: bids(BATCHES * BATCH_RECORDS), target: 4 },
    ]) {
      const batches = Array.from({ length: BATCHES }, (_, i) =>
        records.slice(i * BATCH_RECORDS, (i + 1) * BATCH_RECORDS),
      );
      const contenders = [json(batches), columnar(batches), rows(batches), structures(batches), v8(batches)];
      const measured = await measureRounds(contenders, { rounds, warmupRounds: 3, clock: 'cpu', budgetMs: 20_000 });
      const [baseline, own, ...others] = measured as readonly [Measurement, Measurement, ...Measurement[]];
      say(`${name}: ${measured.map((m) => `${m.name} ${m.nsPerOp.toFixed(0)} ns`).join(', ')} a record`);
      say(`${name}: ${sizes(batches)}`);
      results.push({
        name: `${name}: columnar / JSON`,
        value: speedup(own, baseline),
        unit: 'x',
        ...(target === undefined ? {} : { target: { atLeast: target } }),
        against: 'JSON',
      });
      for (const other of others) {
        results.push({
          name: `${name}: ${other.name} / JSON`,
          value: speedup(other, baseline),
          unit: 'x',
          against: 'JSON',
        });
      }
    }
    return results;
  },
};

function json(batches: readonly Batch[]): Contender {
  return each('JSON', batches, (batch) => JSON.parse(Buffer.from(JSON.stringify(batch)).toString()) as unknown[]);
}

function columnar(batches: readonly Batch[]): Contender {
  return each('columnar', batches, through(columnarCodec()));
}

function rows(batches: readonly Batch[]): Contender {
  return each('rows', batches, through(rowCodec));
}

function structures(batches: readonly Batch[]): Contender {
  const packr = new Packr({ structures: [] });
  return each('msgpackr', batches, (batch) => packr.unpack(packr.pack(batch)) as unknown[]);
}

function v8(batches: readonly Batch[]): Contender {
  return each('v8.serialize', batches, (batch) => deserialize(serialize(batch)) as unknown[]);
}

function through(codec: RecordCodec): (batch: Batch) => readonly unknown[] {
  const encoder = codec.createEncoder();
  const decoder = codec.createDecoder();
  return (batch) => {
    for (const record of batch) encoder.append(record);
    return decoder.decode(encoder.finish());
  };
}

function each(name: string, batches: readonly Batch[], roundTrip: (batch: Batch) => readonly unknown[]): Contender {
  return {
    name,
    run() {
      let records = 0;
      for (let pass = 0; pass < PASSES; pass++) for (const batch of batches) records += roundTrip(batch).length;
      return records;
    },
  };
}

function sizes(batches: readonly Batch[]): string {
  const bytes = (codec: RecordCodec) => {
    const encoder = codec.createEncoder();
    let total = 0;
    for (const batch of batches) {
      for (const record of batch) encoder.append(record);
      total += encoder.finish().length;
    }
    return total;
  };
  const perRecord = (total: number) => (total / batches.length / BATCH_RECORDS).toFixed(1);
  const asJson = batches.reduce((sum, batch) => sum + Buffer.byteLength(JSON.stringify(batch)), 0);
  return `JSON ${perRecord(asJson)}, columnar ${perRecord(bytes(columnarCodec()))}, rows ${perRecord(bytes(rowCodec))} bytes a record`;
}
