import type { Collector, RuntimeContext } from '../api/functions.ts';
import type { PollStatus, Source, SourceReader } from '../api/source.ts';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';

/** Items `[from, to)` of the collection; `next` is the first one not yet emitted. */
export interface CollectionSplit {
  readonly from: number;
  readonly to: number;
  readonly next: number;
}

/**
 * A source that emits the items of a collection written in the program.
 *
 * The items live in the program and not in the splits: a slot runs the same `main` and has them again,
 * so a job graph stays small, and items need not be plain data. Items are emitted as they are, so
 * functions must not mutate them, or a restart would replay what was mutated.
 */
export function collectionSource<T>(
  items: Iterable<T>,
  options: { readonly name?: string } = {},
): Source<T, CollectionSplit> {
  if (items === null || items === undefined || typeof items[Symbol.iterator] !== 'function') {
    throw new InvalidArgumentError('a collection source needs an array or another iterable of items', {
      hint: 'pass an array; for one item pass [item]',
    });
  }
  // Copied at once: an iterator can be walked only once, and a caller may go on changing an array.
  return new CollectionSource(options.name ?? 'Collection Source', [...items]);
}

class CollectionSource<T> implements Source<T, CollectionSplit> {
  readonly boundedness = 'BOUNDED';

  constructor(
    readonly name: string,
    private readonly items: readonly T[],
  ) {}

  /** Contiguous ranges, one for each subtask; a subtask for which nothing is left gets none. */
  enumerateSplits({ parallelism }: { readonly parallelism: number }): readonly CollectionSplit[] {
    const splits: CollectionSplit[] = [];
    for (let i = 0; i < parallelism; i++) {
      const from = Math.floor((this.items.length * i) / parallelism);
      const to = Math.floor((this.items.length * (i + 1)) / parallelism);
      if (from < to) splits.push({ from, to, next: from });
    }
    return splits;
  }

  createReader(_context: RuntimeContext): SourceReader<T, CollectionSplit> {
    return new CollectionReader(this.items);
  }
}

class CollectionReader<T> implements SourceReader<T, CollectionSplit> {
  private splits: CollectionSplit[] = [];
  /** Of the first split. */
  private next = 0;

  constructor(private readonly items: readonly T[]) {}

  async open(splits: readonly CollectionSplit[]): Promise<void> {
    const end = splits.reduce((largest, split) => Math.max(largest, split.to), 0);
    if (end > this.items.length) {
      throw new MillraceError(
        'PROGRAM',
        `the collection has ${this.items.length} items here, but had at least ${end} when the job was submitted`,
        { hint: 'a collection must be the same each time main runs: no time, randomness or environment in it' },
      );
    }
    this.splits = splits.filter((split) => split.next < split.to);
    this.next = this.splits[0]?.next ?? 0;
  }

  poll(out: Collector<T>, maxRecords: number): PollStatus {
    let budget = maxRecords;
    for (let split = this.splits[0]; split !== undefined; split = this.splits[0]) {
      while (this.next < split.to) {
        if (budget-- === 0) return 'more';
        // Advanced before collecting: should collect throw, the task fails and this position is never read.
        out.collect(this.items[this.next++] as T);
      }
      this.splits.shift();
      this.next = this.splits[0]?.next ?? 0;
    }
    return 'end';
  }

  available(): Promise<void> {
    return Promise.resolve();
  }

  snapshot(): readonly CollectionSplit[] {
    return this.splits.map((split, i) => (i === 0 ? { ...split, next: this.next } : split));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
