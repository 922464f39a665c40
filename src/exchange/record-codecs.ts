import { columnarCodec } from './columnar/columnar-codec.ts';
import type { RecordCodec } from './record-codec.ts';
import { rowCodec } from './row-codec.ts';

/** `taskmanager.network.codec` */
export const CODEC_NAMES = ['columnar', 'row'] as const;
export type CodecName = (typeof CODEC_NAMES)[number];

/** What a worker writes when nothing says otherwise. */
export const DEFAULT_CODEC: CodecName = 'columnar';

const columnar = columnarCodec();

/** Every codec that a peer may have written with: what a process writes is a setting, what it reads is not. */
export const RECORD_CODECS: readonly RecordCodec[] = [rowCodec, columnar];

export function recordCodec(name: CodecName): RecordCodec {
  return name === 'columnar' ? columnar : rowCodec;
}
