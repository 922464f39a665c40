/** One figure of a benchmark. */
export interface BenchResult {
  readonly name: string;
  readonly value: number;
  /** `x` is a ratio against the baseline measured in the same run. */
  readonly unit: 'x' | 'ms' | 'ns' | 'MB' | 'bytes' | '/s' | 'records/s' | 'records';
  /** What must hold; absent for figures that are only shown. */
  readonly target?: Target;
  /** What it was compared with, for people. */
  readonly against?: string;
}

export type Target = { readonly atLeast: number } | { readonly atMost: number };

export interface BenchOptions {
  /** Measured rounds; each contender runs once in each. */
  readonly rounds: number;
  /** Keys held by the benchmarks of state; undefined: as many as each of them says. */
  readonly keys: number | undefined;
  /** Jobs that run while leaders are killed. */
  readonly jobs: number;
  /** How often. */
  readonly kills: number;
  /** Only scenarios whose name holds this. */
  readonly only: string | undefined;
}

export interface Benchmark {
  readonly name: string;
  /** What it measures and against what, one sentence. */
  readonly description: string;
  /** `say` prints a line of progress or of detail; it goes to stderr when the results are read by a machine. */
  run(options: BenchOptions, say: (line: string) => void): Promise<readonly BenchResult[]>;
}

export function holds({ value, target }: BenchResult): boolean | undefined {
  if (target === undefined) return undefined;
  return 'atLeast' in target ? value >= target.atLeast : value <= target.atMost;
}
