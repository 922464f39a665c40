import { parseArgs } from 'node:util';
import { simulate, type SimReport } from './simulate.ts';
import { showFailure, showLines } from './show-trace.ts';

/**
 * `npm run sim -- [--seeds N] [--seed S] [--trace] [--stop-after F] [--hashes]`
 *
 * Runs the schedules S, S+1, … and judges each. Ends with 1 when an invariant was violated; then prints the
 * seed and a shortened trace. `--trace` prints the whole trace of one seed.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
    'stop-after': { type: 'string', default: '5' },
    hashes: { type: 'boolean', default: false },
    quiet: { type: 'boolean', default: false },
  },
});
// Stacks of errors that are expected cost more than all else together.
if (!values.trace) Error.stackTraceLimit = 0;

const first = Number(values.seed);
const count = values.trace ? 1 : Number(values.seeds);
const stopAfter = Number(values['stop-after']);
const failed: SimReport[] = [];
const startedMs = performance.now();
let steps = 0;
let done = 0;
let stopped = false;
// What was done until then is told.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    stopped = true;
  });
for (let seed = first; seed < first + count && !stopped; seed++) {
  const report = await simulate(seed, { record: values.trace });
  steps += report.steps;
  done++;
  if (values.hashes) console.log(`${seed} ${report.hash}`);
  if (values.trace) console.log(showLines(report.lines));
  if (report.violations.length > 0) {
    failed.push(report);
    if (values.quiet)
      console.log(`seed ${seed}: invariant ${report.violations[0]?.invariant}: ${report.violations[0]?.message}`);
    else if (values.trace) console.log(report.violations);
    else console.log(showFailure(await again(seed)));
    if (failed.length >= stopAfter) break;
  }
}
const seconds = (performance.now() - startedMs) / 1_000;
const { user, system } = process.cpuUsage();
// On a machine that others use the time on the wall says little.
const cpuSeconds = (user + system) / 1e6;
console.log(
  `${done} schedules from seed ${first}: ${failed.length} with violations; ` +
    `${(done / seconds).toFixed(1)} a second, ${(done / cpuSeconds).toFixed(1)} a second of CPU; ${Math.round(steps / done)} events each`,
);
if (failed.length > 0) {
  console.log(`failed seeds: ${failed.map(({ seed }) => seed).join(' ')}`);
  process.exitCode = 1;
}

/** The same once more, with its trace. */
async function again(seed: number): Promise<SimReport> {
  Error.stackTraceLimit = 10;
  const report = await simulate(seed, { record: true });
  Error.stackTraceLimit = 0;
  return report;
}
