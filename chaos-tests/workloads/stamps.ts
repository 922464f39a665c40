import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Sink } from 'millrace';

/** Finer than this no gap is measured; a busy job writes a line that often. */
const EVERY_MS = 5;

/**
 * Writes down when records come out, committed or not: what a gap in the output is measured by. One file for each
 * attempt, one time a line.
 */
export function stamps(folder: string): Sink<unknown> {
  return {
    name: 'stamps',
    createWriter({ subtaskIndex, attemptNumber }) {
      const file = join(folder, `${subtaskIndex}-${attemptNumber}-${process.pid}-${Math.random()}`);
      let lastMs = 0;
      return {
        open: async () => void mkdirSync(folder, { recursive: true }),
        write() {
          const nowMs = Date.now();
          if (nowMs - lastMs < EVERY_MS) return;
          lastMs = nowMs;
          appendFileSync(file, `${nowMs}\n`);
        },
        ready: () => undefined,
        flush: async () => undefined,
        close: async () => undefined,
      };
    },
  };
}
