import { ensureInfra } from '../test-support/ensure-infra.ts';
import type { Benchmark, BenchResult, Target } from './lib/benchmark.ts';
import { type FailoverMode, FailoverWorld, type Victim } from './lib/failover-world.ts';
import { percentile } from './lib/percentile.ts';

interface Scenario {
  readonly name: string;
  readonly victim: Victim;
  /** Of the kills that were asked for. */
  readonly share: number;
  /**
   * More jobs than this do not run meanwhile. Whoever loses a worker needs a thread for each slot that was there: with a hundred
   * on two cores that is all one would see.
   */
  readonly jobsMax?: number;
  readonly targets: Readonly<Partial<Record<Figure, readonly [p50: number, p99: number]>>>;
}

type Figure = 'elected' | 'running' | 'gap';

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'SIGKILL of the leader',
    victim: 'leader SIGKILL',
    share: 1,
    targets: { elected: [20, 100], running: [100, 300], gap: [30, 150] },
  },
  { name: 'SIGTERM of the leader', victim: 'leader SIGTERM', share: 0.5, targets: { elected: [30, 100] } },
  { name: 'silent leader', victim: 'leader SIGSTOP', share: 0.1, targets: { running: [2_500, 3_000] } },
  { name: 'leader and etcd leader', victim: 'leader and etcd leader', share: 0.2, targets: {} },
  {
    name: 'leader and a worker',
    victim: 'leader and worker',
    share: 0.4,
    jobsMax: 6,
    targets: { running: [700, 1_500] },
  },
  { name: 'a worker', victim: 'worker', share: 0.4, jobsMax: 6, targets: { running: [500, 1_000] } },
];

const WHAT: Readonly<Record<Figure, string>> = {
  elected: 'kill -> elected',
  running: 'kill -> all RUNNING',
  gap: 'longest gap in output',
};

/** How long a cluster of real processes, on a real etcd, feels the death of its leader. */
export const failoverBench: Benchmark = {
  name: 'failover',
  description:
    'kill the leader, in several ways, and wait for the next one and for every job (real etcd, real processes)',
  async run({ jobs: asked, kills, only }, say) {
    const results: BenchResult[] = [];
    await ensureInfra(['etcd']);
    for (const mode of ['adopt', 'restart'] as const) {
      const wanted = SCENARIOS.filter(({ name }) => only === undefined || `${mode}, ${name}`.includes(only));
      for (const jobs of new Set(wanted.map(({ jobsMax = asked }) => Math.min(jobsMax, asked)))) {
        await using world = await FailoverWorld.start({ jobs, mode });
        say(`${mode}: ${jobs} jobs run`);
        for (const scenario of wanted)
          if (Math.min(scenario.jobsMax ?? asked, asked) === jobs)
            results.push(...(await play(world, scenario, mode, kills, say)));
      }
    }
    return results;
  },
};

async function play(
  world: FailoverWorld,
  scenario: Scenario,
  mode: FailoverMode,
  kills: number,
  say: (line: string) => void,
): Promise<BenchResult[]> {
  const figures: Record<Figure, number[]> = { elected: [], running: [], gap: [] };
  const elects = scenario.victim !== 'worker';
  let replayed = 0;
  let lost = 0;
  for (let i = 0; i < Math.max(1, Math.round(kills * scenario.share)); i++) {
    const felt = await world.kill(scenario.victim);
    if (elects) figures.elected.push(felt.electedMs);
    figures.running.push(felt.runningMs);
    figures.gap.push(felt.gapMs);
    replayed += felt.replayed;
    lost += felt.lost;
    say(
      `${mode}, ${scenario.name}: ${elects ? `elected ${felt.electedMs.toFixed(1)} ms, ` : ''}running ${felt.runningMs.toFixed(0)} ms, ` +
        `gap ${felt.gapMs.toFixed(0)} ms, ${felt.replayed} replayed, ${felt.lost} lost`,
    );
  }
  const target = (figure: Figure, at: 0 | 1): { target: Target } | object => {
    const both = scenario.targets[figure];
    // Restarting costs what it costs: only the election is the same.
    if (both === undefined || (mode === 'restart' && figure !== 'elected')) return {};
    return { target: { atMost: both[at] } };
  };
  const prefix = `${mode}, ${scenario.name}${scenario.jobsMax === undefined ? '' : ` (${world.jobs} jobs)`}: `;
  const shown = (Object.keys(WHAT) as Figure[]).filter((figure) => figures[figure].length > 0);
  const timed = shown.flatMap((figure): BenchResult[] => {
    const name = `${prefix}${WHAT[figure]}`;
    const values = figures[figure];
    return [
      { name: `${name}, p50`, value: percentile(values, 0.5), unit: 'ms', ...target(figure, 0) },
      { name: `${name}, p99 of ${values.length}`, value: percentile(values, 0.99), unit: 'ms', ...target(figure, 1) },
      { name: `${name}, worst`, value: Math.max(...values), unit: 'ms' },
    ];
  });
  const nothing = mode === 'adopt' && !scenario.victim.endsWith('worker') ? { target: { atMost: 0 } } : {};
  return [
    ...timed,
    { name: `${prefix}records replayed`, value: replayed, unit: 'records', ...nothing },
    { name: `${prefix}records lost`, value: lost, unit: 'records', target: { atMost: 0 } },
  ];
}
