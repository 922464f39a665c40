import { backpressureBench } from './backpressure.ts';
import { chainBench } from './chain.ts';
import { checkpointBench } from './checkpoint.ts';
import { codecBench } from './codec.ts';
import { failoverBench } from './failover.ts';
import type { Benchmark } from './lib/benchmark.ts';
import { memoryBench } from './memory.ts';
import { restoreBench } from './restore.ts';
import { shuffleBench } from './shuffle.ts';
import { stateBench } from './state.ts';
import { windowBench } from './window.ts';
import { wordCountBench } from './wordcount.ts';

/** All there are, in the order in which `all` runs them. */
export const BENCHMARKS: readonly Benchmark[] = [
  codecBench,
  chainBench,
  wordCountBench,
  windowBench,
  shuffleBench,
  stateBench,
  backpressureBench,
  checkpointBench,
  restoreBench,
  memoryBench,
  failoverBench,
];
