import type { FaultTimeline } from './stage/fault-timeline.ts';
import type { RoundReport } from './stage/run-round.ts';

export interface PlayedRound extends RoundReport {
  /** For example `network namespaces` or `loopback (not root)`. */
  readonly where: string;
}

/** Rounds of one run of the suite, with what was special about it. */
export interface SuiteReport {
  readonly rounds: readonly PlayedRound[];
  readonly machine: string;
  readonly date: string;
  /** What a reader of these figures should know. */
  readonly note?: string | undefined;
  /** Scenarios that could not be played here, and why. */
  readonly skipped: readonly { readonly name: string; readonly why: string }[];
}

const COLUMNS = ['scenario', 'rounds', 'result', 'detection', 'election', 'running', 'gap in output'] as const;

/** One row for each scenario: medians, and the worst in brackets where there are several. */
export function markdownReport({ rounds, machine, date, skipped, note }: SuiteReport): string {
  const failed = rounds.filter(({ problems }) => problems.length > 0);
  const where = [...new Set(rounds.map((round) => round.where))].join(', ');
  return [
    '# Chaos report',
    '',
    `Written by \`npm run chaos -- --report\` on ${date}: ${machine}; hosts: ${where}.`,
    `${rounds.length - failed.length} of ${rounds.length} rounds passed.${note === undefined ? '' : ` ${note}`}`,
    '',
    'Each round runs a cluster of real processes (three masters, two workers, three etcd members, a Ceph S3 gateway)',
    'with one of four jobs (keyed counts; list state and timers; two inputs; no exchange) into files or S3. Then the committed',
    'output is compared with that of a run without faults, line by line, and etcd’s whole history, the bucket, the logs, the slots',
    'and the ends of all processes are checked. Times are milliseconds since the fault, median (worst): until somebody said that a',
    'leader or worker is lost, until a new leader was elected, until all tasks ran again (adopted: they never stopped),',
    'and the longest time without any record out of the job. `-`: it did not happen, and need not.',
    '',
    `| ${COLUMNS.join(' | ')} |`,
    `|${COLUMNS.map(() => '---').join('|')}|`,
    ...byScenario(rounds).map((cells) => `| ${cells.join(' | ')} |`),
    '',
    ...skipped.map(({ name, why }) => `Not played: \`${name}\` (${why}).`),
    ...failed.flatMap(({ scenario, seed, problems }) => [
      '',
      `\`${scenario}\`, seed ${seed}, failed:`,
      '',
      ...problems.map((problem) => `- ${problem.split('\n')[0]}`),
    ]),
    '',
  ].join('\n');
}

/** A round that stands still for so long has met something that its figures do not tell. */
const STILL_MS = 30_000;

/** Whether somebody will want to read the logs: such a round is rarely seen a second time. */
export function wantsReading({ problems, faults }: RoundReport): boolean {
  return problems.length > 0 || faults.some(({ runningMs, gapMs }) => Math.max(runningMs ?? 0, gapMs ?? 0) >= STILL_MS);
}

/** For a terminal. */
export function roundLines(round: RoundReport): string[] {
  const { scenario, seed, workload, sink, faults, tookMs, problems } = round;
  const verdict = problems.length === 0 ? 'PASS' : 'FAIL';
  return [
    `${verdict}  ${scenario}  seed ${seed}, ${workload} to ${sink}, ${(tookMs / 1_000).toFixed(1)} s`,
    ...faults.flatMap((fault) => [
      `      ${fault.what}: detected ${shown(fault.detectedMs)}, elected ${shown(fault.electedMs)}, ` +
        `running ${shown(fault.runningMs)}${fault.adopted ? ' (adopted)' : ''}, gap ${shown(fault.gapMs)}`,
      ...fault.deployments.map(
        ({ afterMs, why }) => `        deployed after ${afterMs} ms${why === undefined ? '' : `: ${why}`}`,
      ),
    ]),
    ...problems.map((problem) => `    - ${problem}`),
  ];
}

function byScenario(rounds: readonly RoundReport[]): string[][] {
  return [...new Set(rounds.map(({ scenario }) => scenario))].map((name) => {
    const own = rounds.filter(({ scenario }) => scenario === name);
    const faults = own.flatMap((round) => round.faults);
    const passed = own.filter(({ problems }) => problems.length === 0).length;
    const recovered = faults.filter(({ runningMs }) => runningMs !== undefined);
    const adopted = recovered.filter((fault) => fault.adopted).length;
    return [
      `\`${name}\``,
      String(own.length),
      passed === own.length ? 'pass' : `**${own.length - passed} failed**`,
      spread(faults, 'detectedMs'),
      spread(faults, 'electedMs'),
      `${spread(faults, 'runningMs')}${adopted === 0 ? '' : `, adopted ${adopted} of ${recovered.length}`}`,
      spread(faults, 'gapMs'),
    ];
  });
}

function spread(faults: readonly FaultTimeline[], field: 'detectedMs' | 'electedMs' | 'runningMs' | 'gapMs'): string {
  const values = faults.flatMap((fault) => fault[field] ?? []).sort((a, b) => a - b);
  const worst = values.at(-1);
  if (worst === undefined) return '-';
  const median = values[Math.floor((values.length - 1) / 2)] ?? worst;
  return values.length === 1 ? String(worst) : `${median} (${worst})`;
}

const shown = (ms: number | undefined) => (ms === undefined ? '-' : `${ms} ms`);
