import type { RecordCodec } from './record-codec.ts';
import { RowDecoder } from './row-decoder.ts';
import { RowEncoder } from './row-encoder.ts';

/**
 * Record after record, each value behind a tag, field names once per batch.
 *
 * Not msgpackr, although it is at hand: it turns -0 into 0, lone surrogates into U+FFFD and the
 * field `__proto__` into `__proto_`, and a stream processor may change nothing that it carries.
 */
export const rowCodec: RecordCodec = {
  id: 1,
  copyable: true,
  createEncoder: () => new RowEncoder(),
  createDecoder: () => new RowDecoder(),
};
