import { appendFileSync, cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { asError } from '../src/kernel/errors.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { playKillSchedules } from './kills.ts';
import { markdownReport, type PlayedRound, roundLines, type SuiteReport, wantsReading } from './report.ts';
import { SCENARIOS } from './scenarios/index.ts';
import type { Scenario } from './scenarios/scenario.ts';
import { fakeTimeLibrary } from './stage/fake-time.ts';
import { runRound } from './stage/run-round.ts';
import { World } from './stage/world.ts';

const USAGE = `npm run chaos -- [options]

  --scenario NAME[,NAME]   all (default), kills, none, or names of --list
  --rounds N               of each scenario (default 1; of kills 10)
  --seed S                 of the first round (default 1)
  --long                   outages as long as the text says
  --loopback               no network namespaces, although they could be had
  --set KEY=VALUE          for every process; may be repeated
  --report                 writes docs/chaos-report.md
  --results FILE           appends each round to this file, and reports all that are in it
  --note TEXT              a sentence for the report
  --keep                   keeps logs and output, also of rounds that passed at once
  --ha embedded|etcd       stores of the kills (default embedded)
  --list                   says what there is

Ends with 1 when a promise was broken.`;

interface Flags {
  readonly scenario: string;
  readonly rounds: number | undefined;
  readonly seed: number;
  readonly ha: 'embedded' | 'etcd';
  readonly settings: readonly string[];
  readonly results: string | undefined;
  readonly note: string | undefined;
  readonly long: boolean;
  readonly loopback: boolean;
  readonly report: boolean;
  readonly keep: boolean;
}

function parseFlags(): Flags | undefined {
  const { values } = parseArgs({
    options: {
      scenario: { type: 'string', default: 'all' },
      rounds: { type: 'string' },
      seed: { type: 'string', default: '1' },
      ha: { type: 'string', default: 'embedded' },
      set: { type: 'string', multiple: true, default: [] },
      results: { type: 'string' },
      note: { type: 'string' },
      long: { type: 'boolean', default: false },
      loopback: { type: 'boolean', default: false },
      report: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const { ha, scenario, results, note, long, loopback, report, keep } = values;
  if (values.help || values.list) {
    console.log(values.help ? USAGE : SCENARIOS.map(({ name, says }) => `${name.padEnd(36)} ${says}`).join('\n'));
    return undefined;
  }
  if (ha !== 'embedded' && ha !== 'etcd') throw new Error(`--ha ${ha}: embedded and etcd are possible`);
  const rounds = values.rounds === undefined ? undefined : count('rounds', values.rounds, 1);
  const seed = count('seed', values.seed, 0);
  return { scenario, rounds, seed, ha, settings: values.set, results, note, long, loopback, report, keep };
}

function count(flag: string, text: string, min: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min) return value;
  throw new Error(`--${flag} must be a whole number of ${min} or more, not "${text}"`);
}

function chosen(names: string): readonly Scenario[] {
  if (names === 'all') return SCENARIOS;
  if (names === 'none') return [];
  return names.split(',').map((name) => {
    const found = SCENARIOS.find((scenario) => scenario.name === name);
    if (found === undefined) throw new Error(`there is no scenario "${name}"; --list shows what there is`);
    return found;
  });
}

/** Why a scenario cannot be played here; undefined when it can. */
function hindrance(scenario: Scenario, world: World): string | undefined {
  for (const need of scenario.needs ?? []) {
    if (need === 'hosts' && world.lab === undefined) return `needs network namespaces: ${world.whyLoopback}`;
    if (need === 'root' && process.getuid?.() !== 0) return 'needs root';
    if (need === 'faketime' && fakeTimeLibrary() === undefined)
      return "needs Debian's libfaketime (as root: node scripts/setup.mjs clocks)";
  }
  return undefined;
}

async function playScenarios(flags: Flags): Promise<boolean> {
  const scenarios = chosen(flags.scenario);
  if (scenarios.length === 0) return writeReport(flags, [], []);
  await using world = await World.open({ loopback: flags.loopback });
  const where = world.lab === undefined ? `loopback (${world.whyLoopback})` : 'network namespaces';
  console.log(`hosts: ${where}`);
  const reports: PlayedRound[] = [];
  const skipped: { name: string; why: string }[] = [];
  for (const scenario of scenarios) {
    const why = hindrance(scenario, world);
    if (why !== undefined) {
      console.log(`SKIP  ${scenario.name}: ${why}`);
      skipped.push({ name: scenario.name, why });
      continue;
    }
    for (let i = 0; i < (flags.rounds ?? 1); i++) {
      const report = await runRound(world, scenario, {
        seed: flags.seed + i,
        long: flags.long,
        settings: flags.settings,
        onEnd: (dir, ended) => (flags.keep || wantsReading(ended)) && keep(dir),
      });
      for (const line of roundLines(report)) console.log(line);
      reports.push({ ...report, where });
      if (flags.results !== undefined) appendFileSync(flags.results, `${JSON.stringify(reports.at(-1))}\n`);
    }
  }
  const failed = reports.filter(({ problems }) => problems.length > 0);
  console.log(`${reports.length - failed.length} of ${reports.length} rounds passed`);
  if (flags.report) writeReport(flags, reports, skipped);
  return failed.length === 0;
}

/** Those of this run, or all that the file of results holds. */
function resultsOf({ results }: Flags, played: readonly PlayedRound[]): readonly PlayedRound[] {
  const rounds =
    results === undefined || !existsSync(results)
      ? [...played]
      : readFileSync(results, 'utf8')
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as PlayedRound);
  const order = new Map(SCENARIOS.map(({ name }, i) => [name, i]));
  return rounds.sort((a, b) => (order.get(a.scenario) ?? 0) - (order.get(b.scenario) ?? 0));
}

function writeReport(flags: Flags, played: readonly PlayedRound[], skipped: SuiteReport['skipped']): boolean {
  const file = join(packageRoot(), 'docs/chaos-report.md');
  const machine = `${cpus().length} cores, Node ${process.versions.node}`;
  const date = new Date().toISOString().slice(0, 10);
  const rounds = resultsOf(flags, played);
  if (flags.results !== undefined) {
    const never = SCENARIOS.filter(({ name }) => !rounds.some((round) => round.scenario === name));
    skipped = never.map(({ name }) => ({ name, why: skipped.find((one) => one.name === name)?.why ?? 'no round yet' }));
  }
  writeFileSync(file, markdownReport({ rounds, machine, date, skipped, note: flags.note }));
  console.log(`written: ${file}`);
  return rounds.every(({ problems }) => problems.length === 0);
}

function keep(dir: string): void {
  const kept = join(tmpdir(), `kept-${basename(dir)}`);
  cpSync(dir, kept, { recursive: true });
  console.log(`kept: ${kept}`);
}

async function main(): Promise<void> {
  const flags = parseFlags();
  if (flags === undefined) return;
  if (flags.scenario === 'kills') {
    const rounds = flags.rounds ?? 10;
    const failed = await playKillSchedules({ ...flags, rounds, keep: (dir) => flags.keep && keep(dir) });
    const which = failed.length > 0 ? `; failed: ${failed}` : '';
    console.log(`${rounds - failed.length} of ${rounds} passed${which}`);
    process.exitCode = failed.length === 0 ? 0 : 1;
    return;
  }
  process.exitCode = (await playScenarios(flags)) ? 0 : 1;
}

try {
  await main();
} catch (error) {
  console.error(`chaos: ${asError(error).stack}`);
  process.exitCode = 1;
}
