import type { Source } from '../../src/api/source.ts';
import { SeededNumbers } from './seeded.ts';

/** Sensor, value, and when it was read. */
export interface Reading {
  readonly sensor: string;
  readonly value: number;
  readonly atMs: number;
}

export interface ReadingsShape {
  readonly readings: number;
  readonly sensors: number;
  /** Of event time. */
  readonly perSecond: number;
}

interface ReadingsSplit {
  readonly end: number;
  next: number;
}

/** Readings made in memory, in order of time, the sensors in no order; each subtask emits its share. */
export function readingsSource(shape: ReadingsShape): Source<Reading, ReadingsSplit> {
  const { readings, perSecond } = shape;
  return {
    name: 'Readings',
    boundedness: 'BOUNDED',
    enumerateSplits: () => [{ next: 0, end: readings }],
    createReader: () => {
      const make = readingMaker(shape);
      let splits: ReadingsSplit[] = [];
      return {
        open: async (given) => {
          splits = [...given];
        },
        poll: (out, recordsMax) => {
          let left = recordsMax;
          for (const split of splits) {
            for (; split.next < split.end; split.next++) {
              if (left-- === 0) return 'more';
              out.collect(make(split.next, perSecond));
            }
          }
          return 'end';
        },
        available: () => Promise.resolve(),
        snapshot: () => splits,
        close: () => Promise.resolve(),
      };
    },
  };
}

/** The reading of each number, the same in every run: strings come from a table, as they would from a decoder with a cache. */
export function readingMaker({ sensors }: ReadingsShape): (n: number, perSecond: number) => Reading {
  const numbers = new SeededNumbers(3);
  const names = JSON.parse(
    JSON.stringify(Array.from({ length: sensors }, (_, i) => `sensor-${i}`)),
  ) as readonly string[];
  const order = Array.from({ length: ORDER }, () => numbers.below(sensors));
  return (n, perSecond) => ({
    sensor: names[order[n & (ORDER - 1)] as number] as string,
    value: n & 255,
    atMs: Math.floor((n * 1_000) / perSecond),
  });
}

const ORDER = 65_536;
