/** An endless stream into a sink that stands still while a file exists. Args: that file. */
import { existsSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import type { Sink, Source, StreamExecutionEnvironment } from 'millrace';

interface Event {
  readonly key: number;
  readonly at: number;
  readonly text: string;
}

const LOOK_EVERY_MS = 50;
const TEXT = 'a line of text as long as lines of logs often are, so that buffers fill by their bytes '.repeat(2);

function endlessSource(): Source<Event, { next: number }> {
  return {
    name: 'Endless',
    boundedness: 'CONTINUOUS_UNBOUNDED',
    enumerateSplits: ({ parallelism }) => Array.from({ length: parallelism }, (_, next) => ({ next })),
    createReader: () => {
      let splits: { next: number }[] = [];
      return {
        open: async (given) => {
          splits = [...given];
        },
        poll: (out, recordsMax) => {
          for (let i = 0; i < recordsMax; i++) {
            const split = splits[i % splits.length];
            if (split === undefined) return 'wait';
            const n = split.next++;
            out.collect({ key: n % 1_000, at: n, text: `${n} ${TEXT}` });
          }
          return 'more';
        },
        available: () => new Promise(() => undefined),
        snapshot: () => splits,
        close: () => Promise.resolve(),
      };
    },
  };
}

function stallingSink(stallFile: string): Sink<Event> {
  return {
    name: 'Stalling',
    createWriter: () => {
      let stalled = false;
      let lookedMs = 0;
      return {
        open: () => Promise.resolve(),
        write: () => undefined,
        ready: () => {
          const nowMs = performance.now();
          if (nowMs - lookedMs > LOOK_EVERY_MS) {
            lookedMs = nowMs;
            stalled = existsSync(stallFile);
          }
          return stalled ? wait(LOOK_EVERY_MS) : undefined;
        },
        flush: () => Promise.resolve(),
        close: () => Promise.resolve(),
      };
    },
  };
}

export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  env
    .fromSource(endlessSource())
    .keyBy(({ key }) => key)
    .reduce((_, event) => event)
    .sinkTo(stallingSink(String(args[0])));
  await env.execute('stalled sink');
}
