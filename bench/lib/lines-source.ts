import type { Source } from '../../src/api/source.ts';
import { vocabulary } from './sample-data.ts';
import { SeededNumbers } from './seeded.ts';

interface LinesSplit {
  readonly end: number;
  next: number;
}

const DISTINCT_LINES = 4_096;
const WORDS_PER_LINE = 10;

export interface TextShape {
  readonly lines: number;
  readonly vocabulary: number;
}

/** Lines of ten words; after 4,096 they repeat. Kept as a parser would leave them: flat strings. */
export function sampleLines(vocabularySize: number): readonly string[] {
  const numbers = new SeededNumbers(11);
  const words = vocabulary(vocabularySize);
  const line = () =>
    Array.from({ length: WORDS_PER_LINE }, () => words[numbers.skewedBelow(words.length)] as string).join(' ');
  return JSON.parse(JSON.stringify(Array.from({ length: DISTINCT_LINES }, line))) as readonly string[];
}

const samples = new Map<number, readonly string[]>();

/** Made once in a thread: a run measures what becomes of the lines, not how they are thought up. */
function keptSample(vocabularySize: number): readonly string[] {
  let sample = samples.get(vocabularySize);
  if (sample === undefined) {
    sample = sampleLines(vocabularySize);
    samples.set(vocabularySize, sample);
  }
  return sample;
}

/** Lines made in memory, so that nothing but the engine is measured. Each subtask emits its share. */
export function linesSource({ lines, vocabulary: size }: TextShape): Source<string, LinesSplit> {
  return {
    name: 'Lines',
    boundedness: 'BOUNDED',
    enumerateSplits: ({ parallelism }) =>
      Array.from({ length: parallelism }, (_, i) => ({
        next: Math.floor((lines * i) / parallelism),
        end: Math.floor((lines * (i + 1)) / parallelism),
      })),
    createReader: () => {
      const sample = keptSample(size);
      let splits: LinesSplit[] = [];
      return {
        open: async (given) => {
          splits = [...given];
        },
        poll: (out, recordsMax) => {
          let left = recordsMax;
          for (const split of splits) {
            for (; split.next < split.end; split.next++) {
              if (left-- === 0) return 'more';
              out.collect(sample[split.next % DISTINCT_LINES] as string);
            }
          }
          return 'end';
        },
        available: () => Promise.resolve(),
        snapshot: () => splits,
        close: () => Promise.resolve(),
      };
    },
  };
}
