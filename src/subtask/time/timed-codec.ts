import type { RecordCodec, RecordDecoder, RecordEncoder } from '../../exchange/record-codec.ts';
import { CorruptError } from '../../kernel/errors.ts';
import type { Element } from './element.ts';

/** Set in the id of a codec whose batches carry timestamps beside the records. */
export const TIMED_CODEC_FLAG = 0x80;

/** Records (as every payload begins), and four bytes that keep the rest aligned. */
const HEADER_BYTES = 8;
const TIMESTAMP_BYTES = 8;

export interface TimedRecordDecoder extends RecordDecoder {
  /** Of the batch decoded last, by record; NaN for none. */
  readonly timestamps: Float64Array;
}

/**
 * A codec with a lane of timestamps in front of what the codec within writes. Records are encoded as
 * ever; their timestamps are read from the task's element as they are appended.
 */
export function timedCodec(inner: RecordCodec, element: Element): RecordCodec {
  return {
    id: inner.id | TIMED_CODEC_FLAG,
    createEncoder: () => new TimedEncoder(inner.createEncoder(), element),
    createDecoder: () => createTimedDecoder(inner),
  };
}

export function createTimedDecoder(inner: RecordCodec): TimedRecordDecoder {
  return new TimedDecoder(inner.createDecoder());
}

class TimedEncoder implements RecordEncoder {
  private lane = new Float64Array(64);

  constructor(
    private readonly inner: RecordEncoder,
    private readonly element: Element,
  ) {}

  get records(): number {
    return this.inner.records;
  }

  get bytes(): number {
    return HEADER_BYTES + this.inner.records * TIMESTAMP_BYTES + this.inner.bytes;
  }

  append(record: unknown): void {
    const at = this.inner.records;
    this.inner.append(record);
    if (at === this.lane.length) {
      const longer = new Float64Array(2 * at);
      longer.set(this.lane);
      this.lane = longer;
    }
    this.lane[at] = this.element.timestampMs;
  }

  finish(): Uint8Array {
    const { records } = this.inner;
    const rest = this.inner.finish();
    const payload = new Uint8Array(HEADER_BYTES + records * TIMESTAMP_BYTES + rest.length);
    const view = new DataView(payload.buffer);
    view.setUint32(0, records, true);
    for (let i = 0; i < records; i++) view.setFloat64(HEADER_BYTES + i * TIMESTAMP_BYTES, this.lane[i] as number, true);
    payload.set(rest, HEADER_BYTES + records * TIMESTAMP_BYTES);
    return payload;
  }
}

class TimedDecoder implements TimedRecordDecoder {
  timestamps: Float64Array = new Float64Array(0);

  constructor(private readonly inner: RecordDecoder) {}

  decode(payload: Uint8Array): readonly unknown[] {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const count = payload.length < HEADER_BYTES ? -1 : view.getUint32(0, true);
    const end = HEADER_BYTES + count * TIMESTAMP_BYTES;
    if (count < 0 || end > payload.length) throw new CorruptError('a batch with timestamps is too short');
    const timestamps = new Float64Array(count);
    for (let i = 0; i < count; i++) timestamps[i] = view.getFloat64(HEADER_BYTES + i * TIMESTAMP_BYTES, true);
    const records = this.inner.decode(payload.subarray(end));
    if (records.length !== count) {
      throw new CorruptError(`a batch has ${count} timestamps for ${records.length} records`);
    }
    this.timestamps = timestamps;
    return records;
  }
}
