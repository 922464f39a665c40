import type { Partitioner } from '../contracts/job-graph.ts';
import { assert, unreachable } from '../kernel/assert.ts';

/**
 * Which subtasks an edge joins. FORWARD joins i to i; RESCALE joins neighbours in even groups (Flink's
 * pointwise pattern); all other partitioners join every producer with every consumer, and choose per
 * record.
 */
export interface EdgeSizes {
  readonly producers: number;
  readonly consumers: number;
}

/** Consumers first .. first + count - 1; subpartition k of the producer is read by consumer first + k. */
export interface ConsumerRange {
  readonly first: number;
  readonly count: number;
}

export function consumersOf(partitioner: Partitioner, sizes: EdgeSizes, producer: number): ConsumerRange {
  const { producers, consumers } = sizes;
  switch (partitioner) {
    case 'FORWARD':
      assert(producers === consumers, 'FORWARD joins equal parallelism');
      return { first: producer, count: 1 };
    case 'RESCALE': {
      if (producers >= consumers) return { first: rescaleTarget(sizes, producer), count: 1 };
      const first = Math.floor((producer * consumers + producers - 1) / producers);
      const end = Math.floor(((producer + 1) * consumers + producers - 1) / producers);
      return { first, count: end - first };
    }
    case 'HASH':
    case 'REBALANCE':
    case 'BROADCAST':
    case 'GLOBAL':
    case 'SHUFFLE':
      return { first: 0, count: consumers };
    default:
      return unreachable(partitioner);
  }
}

/** The producers that a consumer reads, ascending. */
export function producersOf(partitioner: Partitioner, sizes: EdgeSizes, consumer: number): number[] {
  const { producers, consumers } = sizes;
  if (partitioner === 'FORWARD') return [consumer];
  if (partitioner !== 'RESCALE') return range(0, producers);
  if (producers >= consumers) {
    return range(Math.floor((consumer * producers) / consumers), Math.floor(((consumer + 1) * producers) / consumers));
  }
  return [Math.floor((consumer * producers) / consumers)];
}

export function* channelsOf(
  partitioner: Partitioner,
  sizes: EdgeSizes,
): Generator<{ readonly producer: number; readonly consumer: number }> {
  for (let producer = 0; producer < sizes.producers; producer++) {
    const { first, count } = consumersOf(partitioner, sizes, producer);
    for (let consumer = first; consumer < first + count; consumer++) yield { producer, consumer };
  }
}

/** The one consumer of a producer when there are at least as many producers: inverse of the group bounds. */
function rescaleTarget({ producers, consumers }: EdgeSizes, producer: number): number {
  // Consumer c reads [c*P/C, (c+1)*P/C): the largest c with floor(c*P/C) <= producer.
  return Math.floor(((producer + 1) * consumers - 1) / producers);
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
