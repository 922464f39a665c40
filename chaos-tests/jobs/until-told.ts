import { existsSync } from 'node:fs';
import { fileSink, type Source, type StreamExecutionEnvironment } from 'millrace';

/**
 * A job that counts until it is told to end: as long as whoever tests it needs, on a machine however slow. Arguments: the
 * folder of its output, and the file whose existence ends it.
 */
export async function main(env: StreamExecutionEnvironment, [output = '', signal = '']: string[]): Promise<void> {
  env.setParallelism(2);
  env
    .fromSource(untilTold(signal), 'numbers')
    .uid('numbers')
    .keyBy(({ key }) => key)
    .sum('count')
    .uid('counts')
    .map(({ key, count }) => `${key} ${count}`)
    .uid('lines')
    .sinkTo(fileSink(output))
    .uid('output');
  await env.execute('until told');
}

interface Counted {
  readonly key: string;
  readonly count: number;
}

interface Split {
  readonly name: string;
  readonly next: number;
  readonly ended: boolean;
}

export const KEYS = 7;
const EVERY_MS = 5;

/** Each split gives one to each of its keys in turn, and at its end says how many it has given in all. */
function untilTold(signal: string): Source<Counted, Split> {
  return {
    name: 'Until told',
    boundedness: 'BOUNDED',
    enumerateSplits: ({ parallelism }) =>
      Array.from({ length: parallelism }, (_, i) => ({ name: `s${i}`, next: 0, ended: false })),
    createReader: () => {
      let splits: Split[] = [];
      return {
        open: async (assigned) => {
          splits = [...assigned];
        },
        poll: (out) => {
          const told = existsSync(signal);
          splits = splits.map((split) => {
            const { name, next, ended } = split;
            if (ended) return split;
            if (told) out.collect({ key: `total-${name}`, count: next });
            else out.collect({ key: `${name}-${next % KEYS}`, count: 1 });
            return told ? { ...split, ended: true } : { ...split, next: next + 1 };
          });
          return splits.every(({ ended }) => ended) ? 'end' : 'wait';
        },
        available: () => new Promise((resolve) => setTimeout(resolve, EVERY_MS)),
        snapshot: () => splits,
        close: async () => undefined,
      };
    },
  };
}
