import type { SimReport } from './simulate.ts';
import type { TraceLine } from './trace.ts';

const NOTABLE_MAX = 120;
const LAST_MAX = 40;

export function showLines(lines: readonly TraceLine[]): string {
  return lines.map(showLine).join('\n');
}

/** What broke, in which cluster, the notable events before it, and the very last of all events. */
export function showFailure(report: SimReport): string {
  const { seed, config, violations, lines } = report;
  const until = (violations[0]?.atMs ?? Number.POSITIVE_INFINITY) + 1;
  const before = lines.filter(({ atMs }) => atMs <= until);
  const notable = before.filter((line) => line.notable).slice(-NOTABLE_MAX);
  const last = before.slice(-LAST_MAX);
  const { jobs, ...cluster } = config;
  return [
    `seed ${seed}: ${violations.length} violations`,
    ...violations.map(
      ({ invariant, atMs, message }) => `  invariant ${invariant} at ${atMs.toFixed(1)} ms: ${message}`,
    ),
    `cluster: ${JSON.stringify(cluster)}`,
    ...jobs.map(
      ({ graph, records, cancelAtMs }) =>
        `job ${graph.jobId}: ${graph.vertices.map(({ name, parallelism }) => `${name} x${parallelism}`).join(' -> ')}, ${records} records${cancelAtMs === undefined ? '' : ', to be cancelled'}`,
    ),
    `-- notable (${notable.length} of ${before.filter((line) => line.notable).length})`,
    showLines(notable),
    '-- last',
    showLines(last),
    `-- replay: npm run sim -- --seed ${seed} --trace`,
  ].join('\n');
}

function showLine({ atMs, who, what }: TraceLine): string {
  return `${atMs.toFixed(2).padStart(10)} ${who.padEnd(7)} ${what}`;
}
