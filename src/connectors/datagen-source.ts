import type { Collector } from '../api/functions.ts';
import type { PollStatus, Source, SourceReader } from '../api/source.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { type Random, SeededRandom } from '../kernel/random.ts';
import { checkRate, createPacer, type Pacer } from './pacer.ts';

export interface DataGenOptions<T> {
  /**
   * Makes the record of an index (0, 1, 2, …). It must depend on its arguments alone: `random` starts
   * afresh for each index from `seed`, so that a replay makes the same record again.
   */
  readonly generator: (index: number, random: Random) => T;
  readonly seed?: number;
  /** How many records in all; undefined for a stream without end. */
  readonly count?: number;
  /** Records a second over all subtasks; undefined for as fast as possible. */
  readonly ratePerSecond?: number;
  readonly name?: string;
  readonly clock?: Clock;
}

/** Indexes `next`, `next + stride`, … below `end` (null: without end). */
export interface DataGenSplit {
  readonly next: number;
  readonly stride: number;
  readonly end: number | null;
}

/** Records made by a function of their index: for demonstrations, tests and load. Replays exactly. */
export function dataGen<T>(options: DataGenOptions<T>): Source<T, DataGenSplit> {
  const { generator, seed = 0, count, ratePerSecond } = options;
  if (typeof generator !== 'function') throw new InvalidArgumentError('dataGen needs a generator function');
  if (!Number.isInteger(seed)) throw new InvalidArgumentError(`the seed of dataGen is ${seed}; it must be an integer`);
  if (count !== undefined && !(Number.isSafeInteger(count) && count >= 0)) {
    throw new InvalidArgumentError(`the count of dataGen is ${count}; it must be an integer from 0`, {
      hint: 'leave it out for a stream without end',
    });
  }
  checkRate(ratePerSecond);
  return {
    name: options.name ?? 'Data Generator Source',
    boundedness: count === undefined ? 'CONTINUOUS_UNBOUNDED' : 'BOUNDED',
    // Strides rather than ranges: all subtasks advance through the indexes together.
    enumerateSplits: ({ parallelism }) =>
      Array.from({ length: parallelism }, (_, i) => ({ next: i, stride: parallelism, end: count ?? null })).filter(
        ({ next, end }) => end === null || next < end,
      ),
    createReader: (context) => {
      const pacer = createPacer(options.clock ?? new SystemClock(), ratePerSecond, context.parallelism);
      return new DataGenReader(generator, seed, pacer);
    },
  };
}

class DataGenReader<T> implements SourceReader<T, DataGenSplit> {
  private splits: { next: number; readonly stride: number; readonly end: number }[] = [];

  constructor(
    private readonly generator: (index: number, random: Random) => T,
    private readonly seed: number,
    private readonly pacer: Pacer | undefined,
  ) {}

  async open(splits: readonly DataGenSplit[]): Promise<void> {
    this.splits = splits.map(({ next, stride, end }) => ({ next, stride, end: end ?? Number.POSITIVE_INFINITY }));
  }

  poll(out: Collector<T>, maxRecords: number): PollStatus {
    const allowed = this.pacer?.allowed(maxRecords) ?? maxRecords;
    let emitted = 0;
    for (; emitted < allowed; emitted++) {
      const split = this.nextSplit();
      if (split === undefined) break;
      const index = split.next;
      split.next += split.stride;
      out.collect(this.generator(index, new SeededRandom(seedOf(this.seed, index))));
    }
    this.pacer?.used(emitted);
    if (this.nextSplit() === undefined) return 'end';
    return allowed < maxRecords ? 'wait' : 'more';
  }

  available(): Promise<void> {
    return this.pacer?.available() ?? Promise.resolve();
  }

  snapshot(): readonly DataGenSplit[] {
    return this.splits
      .filter(({ next, end }) => next < end)
      .map(({ next, stride, end }) => ({ next, stride, end: Number.isFinite(end) ? end : null }));
  }

  async close(): Promise<void> {
    this.pacer?.close();
  }

  /** The lowest index first: after a change of parallelism one reader may hold several splits. */
  private nextSplit() {
    let lowest: (typeof this.splits)[number] | undefined;
    for (const split of this.splits) {
      if (split.next < split.end && (lowest === undefined || split.next < lowest.next)) lowest = split;
    }
    return lowest;
  }
}

/** A bijection of the index for each seed (below 2^32), so that no two records share their randomness. */
function seedOf(seed: number, index: number): number {
  const high = Math.floor(index / 0x1_0000_0000);
  let h = (index ^ Math.imul(seed, 0x9e3779b1) ^ Math.imul(high, 0x85ebca77)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
