import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { runJob } from '../src/client/commands.ts';
import { RestClient } from '../src/client/rest-client.ts';
import { isTerminalJobStatus, type JobStatus } from '../src/contracts/job-status.ts';
import { SystemClock } from '../src/kernel/clock.ts';
import { SystemRandom } from '../src/kernel/random.ts';
import { asError } from '../src/kernel/errors.ts';
import { CommittedLines, checkOutput, totalWords } from '../src/main/demo/check-output.ts';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import type { BackingStores } from './backing-stores.ts';
import { checkLogs } from './checkers/check-logs.ts';
import { leftovers, StoreInspector } from './checkers/check-stores.ts';
import { clusterLines, strayLines } from './checkers/cluster-logs.ts';
import { judgeQuiet, settled } from './checkers/settled.ts';
import { writeInputText } from './input-text.ts';
import { isLate, type KillSchedule, showSchedule } from './kill-schedule.ts';
import { type KillTimeline, killTimelines } from './kill-timeline.ts';
import { type PlayedKill, playKills } from './play-kills.ts';

export interface ScheduleOptions {
  /** Logs, input, output: a folder of its own, which the caller removes. */
  readonly dir: string;
  readonly stores: BackingStores;
}

export interface ScheduleReport {
  readonly seed: number;
  readonly kills: readonly KillTimeline[];
  readonly tookMs: number;
  /** What was promised and not kept; empty when all is well. */
  readonly problems: readonly string[];
}

/** About 8 s of work without kills: a hundred thousand words. */
const LINES = 4_000;
const LINES_PER_SECOND = 500;
const PARALLELISM = 2;
/** Two vertices: the source with its chain, and the counts with their sink. */
const TASKS = 2 * PARALLELISM;
const END_PATIENCE_MS = 120_000;

export const CHAOS_CONFIG: readonly string[] = [
  'execution.checkpointing.interval=300 ms',
  'execution.checkpointing.tolerable-failed-checkpoints=5',
  'restart-strategy.type=fixed-delay',
  'restart-strategy.fixed-delay.attempts=100',
  'restart-strategy.fixed-delay.delay=100 ms',
  // So that the sweeper is at work in the middle of it all.
  'gc.grace=2 min',
  'gc.interval=1 s',
];

/** How the state of the schedule's job is kept: every way comes up among the seeds. */
export function stateConfigOf({ seed }: KillSchedule): readonly string[] {
  return [
    `state.backend.type=${seed % 5 === 0 ? 'lmdb' : 'hashmap'}`,
    // What one checkpoint leaves to an earlier one must outlive it, whoever leads.
    `state.backend.incremental=${seed % 2 === 1}`,
  ];
}

/**
 * Plays one schedule: three masters and two workers as processes count the words of a real text while
 * they are killed and replaced. Then everything is judged: the output by an independent count, the
 * logs, the stores, the slots, and how the processes end.
 */
export async function runSchedule(schedule: KillSchedule, options: ScheduleOptions): Promise<ScheduleReport> {
  const startedMs = performance.now();
  const problems: string[] = [];
  const played: PlayedKill[] = [];
  const input = join(options.dir, 'input');
  writeInputText(input, { lines: LINES, files: 4 });
  await using cluster = await LocalCluster.start({
    dir: options.dir,
    masters: 3,
    workers: 2,
    slotsPerWorker: 2,
    config: [...CHAOS_CONFIG, ...stateConfigOf(schedule), ...options.stores.config],
  });
  const run = new WordCountRun(cluster, input, join(options.dir, 'output'));
  try {
    await run.submit();
    await playKills(run, schedule, played);
    problems.push(...(await run.judgeEnd()));
    {
      await using inspector = await StoreInspector.open(options.stores.config);
      problems.push(...(await judgeQuiet(cluster, inspector, run.jobId)));
    }
    const due = schedule.kills.filter((kill) => !isLate(kill)).length;
    if (played.length < due) problems.push(`only ${played.length} of ${due} kills took place: the job was too quick`);
    problems.push(...checkLogs(clusterLines(cluster.masters), run.jobId));
    problems.push(...(await judgeStop(cluster, options.stores, run)));
  } catch (error) {
    problems.push(asError(error).stack ?? String(error));
  }
  const kills = killTimelines(cluster, run.jobId, played, TASKS);
  // What is still wrong after the stop was found before it as well.
  return { seed: schedule.seed, kills, tookMs: performance.now() - startedMs, problems: [...new Set(problems)] };
}

/** What a person needs to see the failure again. */
export function showFailure(schedule: KillSchedule, stores: BackingStores, { problems, kills }: ScheduleReport) {
  return [
    `seed ${schedule.seed} (npm run chaos -- --scenario kills --ha ${stores.kind} --seed ${schedule.seed} --rounds 1): ${showSchedule(schedule)}; ${stateConfigOf(schedule).join(', ')}`,
    ...problems.map((problem) => `  - ${problem}`),
    ...kills.map((kill) => `  kill at ${kill.atMs}: ${kill.what}`),
  ].join('\n');
}

/** The job under test, and what can be seen of it from outside. */
class WordCountRun {
  jobId = '';
  private readonly committed: CommittedLines;
  private readonly words: number;

  constructor(
    readonly cluster: LocalCluster,
    private readonly input: string,
    private readonly output: string,
  ) {
    mkdirSync(output, { recursive: true });
    this.committed = new CommittedLines(output);
    this.words = totalWords(input);
  }

  readonly progress = () => this.committed.count() / this.words;

  readonly ended = async () => {
    const state = await this.state().catch(() => undefined); // Nobody leads at the moment.
    return state !== undefined && isTerminalJobStatus(state);
  };

  async submit(): Promise<void> {
    const clock = new SystemClock();
    const addresses = this.cluster.masters.map((master) => master.restUrl);
    await runJob(
      {
        rest: new RestClient(clock, { addresses, patienceMs: 60_000 }),
        clock,
        random: new SystemRandom(),
        pack: packJob,
        print: (line) => {
          this.jobId = /JobID (\w+)/.exec(line)?.[1] ?? this.jobId;
        },
      },
      {
        file: join(packageRoot(), 'examples/word-count-files.ts'),
        args: [
          ...['--input', this.input, '--output', this.output],
          ...['--parallelism', String(PARALLELISM), '--rate', String(LINES_PER_SECOND)],
        ],
        entryClass: undefined,
        parallelism: undefined,
        detached: true,
      },
    );
  }

  /** Waits for the end of the job and judges what it has written: exactly then, not a moment later. */
  async judgeEnd(): Promise<string[]> {
    await until('the job to end', this.ended, { timeoutMs: END_PATIENCE_MS, everyMs: 100 });
    const state = await until('the state of the ended job', () => this.state(), { timeoutMs: END_PATIENCE_MS });
    if (state === 'FINISHED') return this.judgeOutput();
    const exceptions = await this.cluster.get<{ 'root-exception'?: string }>(`/jobs/${this.jobId}/exceptions`);
    return [`the job ended ${state}: ${exceptions['root-exception'] ?? 'no reason given'}`];
  }

  judgeOutput(): string[] {
    const verdict = checkOutput(this.input, this.output);
    return verdict.problems.map((problem) => `output: ${problem}`);
  }

  outputNames(): string[] {
    return readdirSync(this.output)
      .filter((name) => !/^[._]/.test(name))
      .sort();
  }

  private async state(): Promise<JobStatus> {
    return (await this.cluster.get<{ state: JobStatus }>(`/jobs/${this.jobId}`)).state;
  }
}

/** All that lives ends politely when asked; the stores then hold the result alone, and no output has changed. */
async function judgeStop(cluster: LocalCluster, stores: BackingStores, run: WordCountRun): Promise<string[]> {
  const problems: string[] = [];
  const living = [...cluster.liveMasters, ...cluster.liveWorkers];
  const expected = cluster.masters.length + cluster.workers.length - living.length;
  const before = run.outputNames();
  await cluster.stop();
  for (const one of living) {
    const { code, signal } = await one.process.exited;
    if (code !== 0) problems.push(`${one.id} ended with ${signal ?? code} when asked to stop`);
  }
  if (living.length !== 5) problems.push(`${living.length} processes lived at the end, ${expected} were dead`);
  const after = run.outputNames();
  if (after.join() !== before.join()) problems.push(`output changed after the end: ${before} became ${after}`);
  problems.push(...run.judgeOutput());
  await using inspector = await StoreInspector.open(stores.config);
  problems.push(...(await settled(async () => leftovers(await inspector.contents(), run.jobId, true))));
  for (const line of strayLines(cluster.masters)) problems.push(`not a log line: ${line}`);
  for (const line of strayLines(cluster.workers)) problems.push(`not a log line: ${line}`);
  return problems;
}
