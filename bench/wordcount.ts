import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WordAndCount, wordsOf } from './lib/bench-jobs.ts';
import type { Benchmark } from './lib/benchmark.ts';
import { JobSlots } from './lib/job-slots.ts';
import { sampleLines } from './lib/lines-source.ts';
import { type Measurement, measureRounds, speedup } from './lib/rounds.ts';

const REPEATS = 40;
const WORDS_PER_LINE = 10;
const VOCABULARY = 20_000;

/** One slot, from a text file to a sink that discards, against the loop that one would write by hand. */
export const wordCountBench: Benchmark = {
  name: 'wordcount',
  description: 'count the words of a file in one slot, against a hand-written loop on one thread',
  async run({ rounds }, say) {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-'));
    const slots = await JobSlots.start({ slots: 1, place: 'inline', codec: 'columnar' });
    try {
      const path = join(folder, 'words.txt');
      const text = `${sampleLines(VOCABULARY).join('\n')}\n`;
      await writeFile(path, text.repeat(REPEATS));
      const words = text.split('\n').length * WORDS_PER_LINE * REPEATS;
      const contenders = [
        { name: 'loop', run: () => countByHand(path).then(() => words) },
        { name: 'functions', run: () => countByFunctions(path).then(() => words) },
        { name: 'job', run: () => slots.run({ job: 'word count of a file', path }).then(() => words) },
      ];
      const measured = await measureRounds(contenders, {
        rounds: Math.ceil(rounds / 5),
        warmupRounds: 2,
        clock: 'cpu',
      });
      const [loop, functions, job] = measured as readonly [Measurement, Measurement, Measurement];
      say(measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M words/s`).join(', '));
      return [
        {
          name: 'word count, 1 slot / loop',
          value: speedup(job, loop),
          unit: 'x',
          target: { atLeast: 0.9 },
          against: 'hand-written loop',
        },
        {
          name: 'word count, 1 slot / same functions',
          value: speedup(job, functions),
          unit: 'x',
          against: "a loop that calls the job's own functions",
        },
      ];
    } finally {
      await slots.close();
      await rm(folder, { recursive: true, force: true });
    }
  },
};

/** Reads lines, lower-cases and splits them, counts in a Map. */
async function countByHand(path: string): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  for (const line of (await readFile(path, 'utf8')).split('\n')) {
    for (const word of line.toLowerCase().split(/\W+/)) {
      if (word !== '') counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}

/** The job without an engine: its flatMap, its key, and a sum that changes no record, as `sum(1)` does. */
async function countByFunctions(path: string): Promise<ReadonlyMap<string, WordAndCount>> {
  const counts = new Map<string, WordAndCount>();
  for (const line of (await readFile(path, 'utf8')).split('\n')) {
    for (const pair of wordsOf(line)) {
      const [word, count] = pair;
      const current = counts.get(word);
      counts.set(word, current === undefined ? pair : [word, current[1] + count]);
    }
  }
  return counts;
}
