import { codecBench } from './codec.ts';
import type { Benchmark } from './lib/benchmark.ts';

/** All there are, in the order in which `all` runs them. */
export const BENCHMARKS: readonly Benchmark[] = [codecBench];
