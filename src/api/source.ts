import type { Collector, RuntimeContext } from './functions.ts';

/**
 * A replayable source. Splits are found once, when the graph is built, and kept with the job graph:
 * a folder that changes while a job restarts cannot change the job's input. A split carries its own
 * position, so what a reader snapshots is what another reader resumes from, also with another
 * parallelism.
 *
 * `Split` must be plain data (what structured clone of JSON-like values keeps).
 */
export interface Source<T, Split = unknown> {
  readonly name: string;
  readonly boundedness: 'BOUNDED' | 'CONTINUOUS_UNBOUNDED';
  /** Rejects with a clear error when the input is not there. Never touches functions of the program. */
  enumerateSplits(context: { readonly parallelism: number }): Promise<readonly Split[]> | readonly Split[];
  createReader(context: RuntimeContext): SourceReader<T, Split>;
}

/** `more`: call again; `wait`: nothing now, see `available`; `end`: every split is exhausted for good. */
export type PollStatus = 'more' | 'wait' | 'end';

export interface SourceReader<T, Split> {
  /** Called once before the first poll, with fresh or restored splits (possibly none). */
  open(splits: readonly Split[]): Promise<void>;
  /** Emits at most `maxRecords` records, synchronously. */
  poll(out: Collector<T>, maxRecords: number): PollStatus;
  /** After `wait`: resolves when polling makes sense again. */
  available(): Promise<void>;
  /** The splits as they stand after the last record emitted; exhausted ones may be left out. */
  snapshot(): readonly Split[];
  close(): Promise<void>;
}
