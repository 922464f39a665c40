import { appendFileSync, closeSync, openSync, readSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Sink, Source, StreamExecutionEnvironment } from 'millrace';

/**
 * A job that shows when its output pauses or goes back: numbered ticks at a steady pace, from a replayable source
 * into a sink that notes each longer gap and each number that comes again. For the benchmark of failovers.
 */
export async function main(env: StreamExecutionEnvironment, args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: { notes: { type: 'string' }, 'every-ms': { type: 'string' }, 'checkpoint-ms': { type: 'string' } },
  });
  const { notes = '', 'every-ms': everyMs = '100', 'checkpoint-ms': checkpointMs = '1000' } = values;
  env.setParallelism(1);
  env.enableCheckpointing(Number(checkpointMs));
  env
    .fromSource(ticks(Number(everyMs)), 'ticks')
    .uid('ticks')
    .map((n) => n)
    .uid('same')
    .sinkTo(noteGaps(notes))
    .uid('notes');
  await env.execute('Ticks');
}

function ticks(everyMs: number): Source<number, { next: number }> {
  return {
    name: 'Ticks',
    boundedness: 'CONTINUOUS_UNBOUNDED',
    enumerateSplits: () => [{ next: 0 }],
    createReader: () => {
      let split = { next: 0 };
      let dueMs = 0;
      return {
        open: async (splits) => {
          split = { ...(splits[0] ?? split) };
          dueMs = performance.now();
        },
        poll: (out) => {
          if (performance.now() < dueMs) return 'wait';
          out.collect(split.next++);
          // Ticks that were missed are not made up for: the pace after a pause is the pace before it.
          dueMs = Math.max(dueMs + everyMs, performance.now());
          return 'wait';
        },
        available: () => new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now()))),
        snapshot: () => [{ ...split }],
        close: async () => undefined,
      };
    },
  };
}

const GAP_MS = 8;
/** Time of the last tick, and its number. */
const STATE_BYTES = 16;

function noteGaps(path: string): Sink<number> {
  return {
    name: 'Notes',
    createWriter: () => {
      const state = Buffer.alloc(STATE_BYTES);
      let notes = -1;
      let last = -1;
      return {
        open: async () => {
          notes = openSync(`${path}.notes`, 'a');
          appendFileSync(`${path}.starts`, '.');
          last = openSync(`${path}.last`, 'a+');
          closeSync(last);
          last = openSync(`${path}.last`, 'r+');
          // What the writer before this one, perhaps in another process, did last.
          if (readSync(last, state, 0, STATE_BYTES, 0) < STATE_BYTES) state.fill(0);
        },
        write: (n) => {
          const atMs = performance.timeOrigin + performance.now();
          const beforeMs = state.readDoubleLE(0);
          const before = state.readDoubleLE(8);
          if (beforeMs > 0 && atMs - beforeMs > GAP_MS) writeSync(notes, `gap ${beforeMs} ${atMs}\n`);
          if (beforeMs > 0 && n <= before) writeSync(notes, `again ${atMs} ${before - n + 1}\n`);
          if (beforeMs > 0 && n > before + 1) writeSync(notes, `lost ${atMs} ${n - before - 1}\n`);
          state.writeDoubleLE(atMs, 0);
          state.writeDoubleLE(n, 8);
          writeSync(last, state, 0, STATE_BYTES, 0);
        },
        ready: () => undefined,
        flush: async () => undefined,
        close: async () => {
          closeSync(notes);
          closeSync(last);
        },
      };
    },
  };
}
