/** One record of a simulated job: where it came from, its key, and, once counted, its number among its key's. */
export interface SimRecord {
  readonly split: number;
  readonly offset: number;
  readonly key: string;
  readonly count?: number;
}

/** A source's share of the input, with its position. */
export interface SimSplit {
  readonly split: number;
  readonly next: number;
  readonly end: number;
}

/** How far a source had read its splits, and how many records any other task had processed since it started. */
export interface SeenByTask {
  readonly splits: readonly SimSplit[];
  readonly records: number;
}

/** The input is a function of its position, so every attempt reads the same. */
export function recordAt(split: number, offset: number, keys: number): SimRecord {
  const mixed = Math.imul((split + 1) * 7919 + offset * 104_729, 0x9e3779b1) >>> 0;
  return { split, offset, key: `k${mixed % keys}` };
}
