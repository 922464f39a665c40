import { parseArgs } from 'node:util';
import type { Benchmark, BenchOptions, BenchResult } from './lib/benchmark.ts';
import { holds } from './lib/benchmark.ts';
import { jsonLine, table } from './lib/report.ts';
import { BENCHMARKS } from './registry.ts';

const USAGE = `usage: npm run bench -- NAME [--json] [--rounds N] [--keys N] [--jobs N] [--kills N] [--only TEXT]

  NAME      all, or one or more of:
${BENCHMARKS.map(({ name, description }) => `              ${name.padEnd(13)} ${description}`).join('\n')}
  --json    the last line of the output is {"bench": NAME, "results": [...]}
  --rounds  measured rounds (default 40)
  --keys    keys held by the benchmarks of state (default: as said there)
  --jobs    jobs that run while leaders are killed (default 6)
  --kills   how often leaders are killed with SIGKILL; other ways to die take a part of it (default 1)
  --only    failover: only scenarios whose name holds this, e.g. 'adopt, SIGKILL'
`;

interface Request {
  readonly name: string;
  readonly benchmarks: readonly Benchmark[];
  readonly options: BenchOptions;
  readonly json: boolean;
}

function parse(args: readonly string[]): Request {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      rounds: { type: 'string', default: '40' },
      keys: { type: 'string' },
      jobs: { type: 'string', default: '6' },
      kills: { type: 'string', default: '1' },
      only: { type: 'string' },
    },
  });
  if (positionals.length === 0) throw new Error('name a benchmark');
  const benchmarks = positionals.includes('all') ? BENCHMARKS : positionals.map(benchmarkNamed);
  const options = {
    rounds: wholeNumber('rounds', values.rounds),
    keys: values.keys === undefined ? undefined : wholeNumber('keys', values.keys),
    jobs: wholeNumber('jobs', values.jobs),
    kills: wholeNumber('kills', values.kills),
    only: values.only,
  };
  return { name: positionals.join(' '), benchmarks, options, json: values.json };
}

function benchmarkNamed(name: string): Benchmark {
  const found = BENCHMARKS.find((benchmark) => benchmark.name === name);
  if (found === undefined) throw new Error(`there is no benchmark '${name}'`);
  return found;
}

function wholeNumber(option: string, text: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) throw new Error(`--${option} takes a whole number from 1, not '${text}'`);
  return Number(text);
}

async function run({ name, benchmarks, options, json }: Request): Promise<void> {
  const all: BenchResult[] = [];
  for (const benchmark of benchmarks) {
    console.log(`\n${benchmark.name}: ${benchmark.description}`);
    const results = await benchmark.run(options, (line) => console.log(`  ${line}`));
    console.log(table(results));
    all.push(
      ...(benchmarks.length === 1 ? results : results.map((r) => ({ ...r, name: `${benchmark.name}: ${r.name}` }))),
    );
  }
  const missed = all.filter((result) => holds(result) === false).length;
  console.log(`\n${missed === 0 ? 'all targets hold' : `${missed} targets missed`} (Node ${process.version})`);
  if (json) console.log(jsonLine(name, all));
}

let request: Request | undefined;
try {
  request = parse(process.argv.slice(2));
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exitCode = 2;
}
if (request !== undefined) await run(request);
