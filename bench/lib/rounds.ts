/** One of several ways to do the same work. */
export interface Contender {
  readonly name: string;
  /** Does a fixed amount of work, some milliseconds, and gives how many operations that was. */
  run(): number | Promise<number>;
}

export interface Measurement {
  readonly name: string;
  /** Median over the rounds. */
  readonly nsPerOp: number;
  /** Of each round. */
  readonly samples: readonly number[];
  /** By the CPU that the process used, whichever clock was asked for. */
  readonly cpuNsPerOp?: number;
}

export interface RoundsOptions {
  readonly rounds: number;
  /** Rounds that are thrown away: V8 compiles and learns in them. */
  readonly warmupRounds: number;
  /**
   * `cpu`: what the process used, its garbage collection in other threads included. For work in one
   * thread that never waits: a machine shared with others then tells the same ratios as a quiet one.
   */
  readonly clock: 'wall' | 'cpu';
  /** No further round begins after so long, once there are three. Default 45 seconds. */
  readonly budgetMs?: number;
}

const ROUNDS_MIN = 3;

/**
 * Measures by turns: in each round every contender runs once, in a rotating order. Whatever slows the
 * machine for a while then slows all of them, and ratios within the run stay true.
 */
export async function measureRounds(
  contenders: readonly Contender[],
  { rounds, warmupRounds, clock, budgetMs = 45_000 }: RoundsOptions,
): Promise<readonly Measurement[]> {
  const samples = contenders.map((): number[] => []);
  const cpuSamples = contenders.map((): number[] => []);
  const endMs = performance.now() + budgetMs;
  for (let round = 0; round < warmupRounds + rounds; round++) {
    if (round >= warmupRounds + ROUNDS_MIN && performance.now() > endMs) break;
    for (let turn = 0; turn < contenders.length; turn++) {
      const at = (round + turn) % contenders.length;
      const contender = contenders[at] as Contender;
      const startNs = CLOCKS[clock]();
      const startCpuNs = CLOCKS.cpu();
      const ran = contender.run();
      const operations = typeof ran === 'number' ? ran : await ran;
      const tookNs = CLOCKS[clock]() - startNs;
      if (round < warmupRounds) continue;
      samples[at]?.push(tookNs / operations);
      cpuSamples[at]?.push((CLOCKS.cpu() - startCpuNs) / operations);
    }
  }
  return contenders.map(({ name }, i) => {
    const own = samples[i] as readonly number[];
    return { name, nsPerOp: median(own), samples: own, cpuNsPerOp: median(cpuSamples[i] as readonly number[]) };
  });
}

const CLOCKS = {
  wall: () => performance.now() * 1e6,
  cpu: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) * 1e3;
  },
} as const;

/** How many times as fast as the baseline: the median of the rounds' own ratios. */
export function speedup(measurement: Measurement, baseline: Measurement): number {
  return median(measurement.samples.map((sample, round) => (baseline.samples[round] as number) / sample));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
