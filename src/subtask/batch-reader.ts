import type { RecordsMessage } from '../exchange/channel-message.ts';
import type { RecordCodec, RecordDecoder } from '../exchange/record-codec.ts';
import { asError, CorruptError } from '../kernel/errors.ts';
import { createTimedDecoder, TIMED_CODEC_FLAG } from './time/timed-codec.ts';

export interface ReadBatch {
  readonly records: readonly unknown[];
  readonly timestamps: Float64Array | undefined;
}

/** Decodes what a task's channels bring, by the codec that each batch says it was written with. */
export class BatchReader {
  private readonly decoders = new Map<number, RecordDecoder>();

  constructor(
    private readonly codecs: readonly RecordCodec[],
    /** Names the task and the channel in errors. */
    private readonly taskName: string,
  ) {}

  /** Throws `CORRUPT` for a batch that is not what a codec writes. */
  read(message: RecordsMessage, channel: string): ReadBatch {
    if (message.copies !== undefined) return { records: message.copies, timestamps: undefined };
    try {
      const decoder = this.decoderOf(message.codec);
      return { records: decoder.decode(message.payload), timestamps: decoder.timestamps };
    } catch (error) {
      const cause = asError(error);
      const size = `${message.payload.length} bytes for ${message.records} records`;
      throw new CorruptError(`${this.taskName}: ${channel} sent a batch (${size}) that is damaged: ${cause.message}`, {
        cause,
        hint: 'Do all taskmanagers run the same release? Otherwise suspect the memory or the network of one of the two hosts.',
      });
    }
  }

  private decoderOf(id: number): RecordDecoder {
    const known = this.decoders.get(id);
    if (known !== undefined) return known;
    const codec = this.codecs.find((one) => one.id === (id & ~TIMED_CODEC_FLAG));
    if (codec === undefined) throw new CorruptError(`it uses the record codec ${id}, which this process does not know`);
    const decoder = (id & TIMED_CODEC_FLAG) === 0 ? codec.createDecoder() : createTimedDecoder(codec);
    this.decoders.set(id, decoder);
    return decoder;
  }
}
