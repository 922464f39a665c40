import type { RecordCodec } from '../record-codec.ts';
import { rowCodec } from '../row-codec.ts';
import { ColumnarDecoder } from './columnar-decoder.ts';
import { ColumnarEncoder } from './columnar-encoder.ts';
import { createRead } from './generate-read.ts';
import { interpretRead } from './interpret-read.ts';

export interface ColumnarCodecOptions {
  /**
   * `auto` (default): generated code where the process allows it. `never`: records are sent by rows,
   * and columns from others are read by an interpreter.
   */
  readonly codeGeneration?: 'auto' | 'never';
}

/**
 * Records of the same shape go as columns: one joined string per field of strings, packed numbers,
 * bits for booleans. Encoder and decoder are generated for each shape, which the encoder learns from
 * the records and learns anew when they change; a batch describes itself, so the decoder needs no
 * history. What has no frequent shape goes by rows within the same batch.
 *
 * Decoded strings of 13 or more characters are slices of their column's string, and keep all of it
 * (tens of kilobytes) alive. Whoever keeps a few strings of many batches for long must copy them;
 * keyed and operator state does.
 */
export function columnarCodec(options: ColumnarCodecOptions = {}): RecordCodec {
  if (!isLittleEndian()) return rowCodec;
  const generate = options.codeGeneration !== 'never' && allowsCodeGeneration();
  return {
    id: 2,
    copyable: true,
    createEncoder: () => new ColumnarEncoder(() => rowCodec.createEncoder(), { learn: generate }),
    createDecoder: () => new ColumnarDecoder(rowCodec.createDecoder(), generate ? createRead : interpretRead),
  };
}

/** Columns are numbers as the processor keeps them. All platforms of Node but one (s390x) are little-endian. */
function isLittleEndian(): boolean {
  return new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
}

/** Not under `--disallow-code-generation-from-strings`. */
function allowsCodeGeneration(): boolean {
  try {
    return (new Function('return 1') as () => number)() === 1;
  } catch {
    // An EvalError is the answer to the question.
    return false;
  }
}
