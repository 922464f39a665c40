import type { Source } from '../../api/source.ts';

export interface RangeSplit {
  readonly name: string;
  readonly end: number;
  next: number;
}

export interface RangeRecord {
  readonly split: string;
  readonly n: number;
}

/** Lets a test say how far readers may go. */
export class Valve {
  limit: number;
  private readonly waiting = new Set<() => void>();

  constructor(limit = Number.POSITIVE_INFINITY) {
    this.limit = limit;
  }

  open(limit = Number.POSITIVE_INFINITY): void {
    this.limit = limit;
    for (const resume of this.waiting) resume();
    this.waiting.clear();
  }

  moved(): Promise<void> {
    return new Promise((resolve) => this.waiting.add(resolve));
  }

  get waiters(): number {
    return this.waiting.size;
  }
}

/** Numbers from each split, resumable at any of them, as far as the valve allows. */
export function rangeSource(
  ends: readonly number[],
  valve = new Valve(),
  options: { readonly endless?: boolean } = {},
): Source<RangeRecord, RangeSplit> {
  return {
    name: 'Range',
    boundedness: 'BOUNDED',
    enumerateSplits: () => ends.map((end, i) => ({ name: `s${i}`, end, next: 0 })),
    createReader: () => {
      let splits: RangeSplit[] = [];
      return {
        open: async (given) => {
          splits = [...given];
        },
        poll: (out, recordsMax) => {
          let emitted = 0;
          for (const split of splits) {
            while (split.next < split.end && split.next < valve.limit) {
              if (emitted === recordsMax) return 'more';
              out.collect({ split: split.name, n: split.next });
              split.next++;
              emitted++;
            }
          }
          if (emitted > 0) return 'more';
          return options.endless !== true && splits.every(({ next, end }) => next >= end) ? 'end' : 'wait';
        },
        available: () => valve.moved(),
        snapshot: () => splits.filter(({ next, end }) => next < end),
        close: async () => undefined,
      };
    },
  };
}
