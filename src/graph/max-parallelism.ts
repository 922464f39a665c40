import { DEFAULT_MAX_PARALLELISM, MAX_PARALLELISM_LIMIT } from '../contracts/job-graph.ts';

/** Flink's default number of key groups: room to grow by half, a power of two, at least 128. */
export function defaultMaxParallelism(parallelism: number): number {
  const wanted = parallelism + Math.floor(parallelism / 2);
  const powerOfTwo = 2 ** Math.ceil(Math.log2(wanted));
  return Math.min(Math.max(powerOfTwo, DEFAULT_MAX_PARALLELISM), MAX_PARALLELISM_LIMIT);
}
