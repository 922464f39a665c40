/**
 * How records become the payload of a `records` frame and back. Several codecs may live side by
 * side: the frame header carries the id of the one that wrote it.
 *
 * Every codec gives back what structured clone would: -0, NaN, `undefined` against `null`, bigint,
 * Date, Uint8Array, Map, Set, any string. Functions, symbols and promises are refused with
 * `INVALID_ARGUMENT`.
 */
export interface RecordCodec {
  /** 0 to 255, in the frame header. */
  readonly id: number;
  /** A batch carries nothing but its records: within one thread, copies of them may take its place. */
  readonly copyable?: true;
  createEncoder(): RecordEncoder;
  createDecoder(): RecordDecoder;
}

/** Gathers one batch. */
export interface RecordEncoder {
  /**
   * Encodes now, so that a record changed afterwards is sent as it was. When it throws, the batch
   * stands as it was before the call.
   */
  append(record: unknown): void;
  readonly records: number;
  /** Size of the payload as it stands; an estimate where only the whole batch shows how well it packs. */
  readonly bytes: number;
  /** The batch as bytes that nobody else holds; the encoder is empty again. */
  finish(): Uint8Array;
}

export interface RecordDecoder {
  /** Throws `CORRUPT` when the payload is not what the encoder made. Records never alias the payload. */
  decode(payload: Uint8Array): readonly unknown[];
  /** Of the batch decoded last, by record, when the codec carries timestamps beside the records; NaN for none. */
  readonly timestamps?: Float64Array;
}
