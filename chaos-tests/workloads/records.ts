/**
 * What the workloads read, and what they must write: pure functions of the record's index, so that the
 * checker needs no run without faults to know the fault-free output. Shares no code with the engine.
 */

export interface WorkloadOptions {
  readonly records: number;
  readonly ratePerSecond: number;
  readonly parallelism: number;
  /** A folder, or `s3://bucket/prefix`. */
  readonly output: string;
  /** A folder for the times at which records came out (see `stamps.ts`). */
  readonly stamps: string;
}

/** A well spread number for each index. */
export function mixed(index: number): number {
  let x = (index + 0x9e3779b9) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

const WORDS = 61;
const KEYS = 17;
export const WINDOW = 200;

export const wordOf = (index: number): string => `word-${mixed(index) % WORDS}`;

export interface Reading {
  readonly key: string;
  /** Event time: the index itself. */
  readonly at: number;
}

export const readingOf = (index: number): Reading => ({ key: `key-${mixed(index) % KEYS}`, at: index });
export const windowEndOf = (at: number): number => (Math.floor(at / WINDOW) + 1) * WINDOW;

export interface Half {
  readonly id: number;
  readonly value: number;
}

/** Each id once on either side, in different orders, so that either may be the first. */
export const leftOf = (index: number): Half => ({ id: index, value: mixed(index) % 1_000 });
export const rightOf = (index: number, records: number): Half => ({
  id: (index * STEP + 13) % records,
  value: index,
});
/** A prime, larger than any count of records it could divide. */
const STEP = 1_000_003;

export const forwardLineOf = (index: number): string => `${index} ${mixed(index)}`;

const LINES: Readonly<Record<WorkloadName, (records: number) => string[]>> = {
  counts(records) {
    const counts = new Map<string, number>();
    return indexes(records).map((index) => {
      const word = wordOf(index);
      const count = (counts.get(word) ?? 0) + 1;
      counts.set(word, count);
      return `${word} ${count}`;
    });
  },
  windows(records) {
    const windows = new Map<string, number[]>();
    for (const index of indexes(records)) {
      const { key, at } = readingOf(index);
      const name = `${key} ${windowEndOf(at)}`;
      windows.set(name, [...(windows.get(name) ?? []), at]);
    }
    return [...windows].map(([name, times]) => `${name} ${times.join(',')}`);
  },
  pairs(records) {
    const rights = new Map(indexes(records).map((index) => [rightOf(index, records).id, index]));
    return indexes(records).map((index) => `${index} ${leftOf(index).value} ${rights.get(index)}`);
  },
  forward: (records) => indexes(records).map(forwardLineOf),
};

export type WorkloadName = 'counts' | 'windows' | 'pairs' | 'forward';
export const WORKLOADS: readonly WorkloadName[] = ['counts', 'windows', 'pairs', 'forward'];

/** Every line of the output without faults, in any order. */
export function expectedLines(name: WorkloadName, records: number): string[] {
  return LINES[name](records);
}

function indexes(records: number): number[] {
  return Array.from({ length: records }, (_, index) => index);
}
