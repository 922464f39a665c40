import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Benchmark, BenchOptions } from './lib/benchmark.ts';
import { jsonLine, type ResultLine, resultLine, table } from './lib/report.ts';
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
  /** The options as they were given, for another process. */
  readonly args: readonly string[];
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
  const given = Object.entries(values).flatMap(([key, value]) =>
    typeof value === 'string' ? [`--${key}`, value] : [],
  );
  return { name: positionals.join(' '), benchmarks, options, json: values.json, args: given };
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

async function run({ name, benchmarks, options, json, args }: Request): Promise<void> {
  const lines: ResultLine[] = [];
  for (const benchmark of benchmarks) {
    if (benchmarks.length > 1) {
      const results = await runApart(benchmark, args);
      lines.push(...results.map((line) => ({ ...line, name: `${benchmark.name}: ${line.name}` })));
      continue;
    }
    console.log(`\n${benchmark.name}: ${benchmark.description}`);
    const results = await benchmark.run(options, (line) => console.log(`  ${line}`));
    console.log(table(results));
    lines.push(...results.map(resultLine));
  }
  const missed = lines.filter((line) => line.holds === false).length;
  console.log(`\n${missed === 0 ? 'all targets hold' : `${missed} targets missed`} (Node ${process.version})`);
  if (json) console.log(jsonLine(name, lines));
}

/**
 * Each of several in a process of its own: what V8 has learnt of the records of one must not slow the next, and
 * memory that one has left is not counted to another.
 */
async function runApart({ name }: Benchmark, args: readonly string[]): Promise<readonly ResultLine[]> {
  const child = spawn(
    process.execPath,
    [...process.execArgv, fileURLToPath(import.meta.url), name, '--json', ...args],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const exited = once(child, 'exit');
  let results: readonly ResultLine[] | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('{"bench":')) results = (JSON.parse(line) as { results: ResultLine[] }).results;
    else console.log(line);
  }
  const [code, signal] = await exited;
  if (results === undefined) throw new Error(`${name} ended with ${signal ?? code} and no results`);
  return results;
}

let request: Request | undefined;
try {
  request = parse(process.argv.slice(2));
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exitCode = 2;
}
if (request !== undefined) await run(request);
