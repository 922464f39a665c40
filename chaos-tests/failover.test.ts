import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runJob } from '../src/client/commands.ts';
import { RestClient } from '../src/client/rest-client.ts';
import { SystemClock } from '../src/kernel/clock.ts';
import { SystemRandom } from '../src/kernel/random.ts';
import { CommittedLines, checkOutput, totalWords } from '../src/main/demo/check-output.ts';
import { FailoverStory } from '../src/main/demo/failover-story.ts';
import { packJob } from '../src/program/pack.ts';
import { Limiter } from '../src/program/limiter.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { sharedEtcd, sharedS3 } from '../test-support/vitest-shared.ts';
import { sharedStores } from './backing-stores.ts';
import { writeInputText } from './input-text.ts';
import { isLate, makeKillSchedule } from './kill-schedule.ts';
import { CHAOS_CONFIG, runSchedule, showFailure, stateConfigOf } from './run-schedule.ts';

/** Generous: the deadlines inside say what was waited for; this one is for what hangs without saying. */
const TEST_TIMEOUT_MS = 10 * 60_000;

async function inFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = makeTempFolder('chaos');
  try {
    return await work(dir);
  } finally {
    removeTempFolder(dir);
  }
}

const stores = async () => sharedStores(await sharedEtcd(), await sharedS3());

test(
  'a word count survives its leader, a worker and its new leader, on etcd and S3',
  { timeout: TEST_TIMEOUT_MS },
  () =>
    inFolder(async (dir) => {
      const [input, output] = [join(dir, 'input'), join(dir, 'output')];
      writeInputText(input, { lines: 5_000, files: 4 });
      mkdirSync(output);
      await using cluster = await LocalCluster.start({
        dir,
        masters: 3,
        workers: 2,
        slotsPerWorker: 2,
        config: [...CHAOS_CONFIG, ...(await stores()).config],
      });
      const clock = new SystemClock();
      const addresses = cluster.masters.map((master) => master.restUrl);
      const rest = new RestClient(clock, { addresses, patienceMs: 60_000 });
      let jobId = '';
      const print = (line: string) => {
        jobId = /JobID (\w+)/.exec(line)?.[1] ?? jobId;
      };
      await runJob(
        { rest, clock, random: new SystemRandom(), pack: packJob, print },
        {
          file: join(packageRoot(), 'examples/word-count-files.ts'),
          args: ['--input', input, '--output', output, '--parallelism', '2', '--rate', '500'],
          entryClass: undefined,
          parallelism: undefined,
          detached: true,
        },
      );
      const [committed, words] = [new CommittedLines(output), totalWords(input)];
      const told: string[] = [];
      const story = new FailoverStory({
        ...{ cluster, rest, clock, jobId },
        progress: () => committed.count() / words,
        print: (line) => told.push(line),
      });
      await story.untilProgress(0.2);
      await story.killLeader('first leader killed');
      await story.untilProgress(0.45);
      await story.killWorker('a worker killed');
      await story.untilProgress(0.7);
      await story.killLeader('new leader killed');
      expect(await story.untilEnd(), told.join('\n')).toBe('FINISHED');
      expect(checkOutput(input, output)).toMatchObject({ pass: true, problems: [] });
      expect(story.timelines).toHaveLength(3);
      await cluster.stop();
    }),
);

/** Chosen so that together they hold every kind of victim and of moment, and every way to keep state. */
const SEEDS = [2, 4, 7, 10, 11, 12, 14, 15, 32, 40];

test('the ten schedules hold every kind of victim and of moment, and every way to keep state', () => {
  const schedules = SEEDS.map(makeKillSchedule);
  const kills = schedules.flatMap((schedule) => schedule.kills);
  expect(new Set(schedules.map((schedule) => stateConfigOf(schedule).join())).size).toBe(4);
  expect(new Set(kills.map(({ victim }) => victim)).size).toBe(6);
  expect(new Set(kills.map(({ when }) => when.kind)).size).toBe(4);
  expect(kills.some(isLate)).toBe(true);
});

/** Each is ten processes at times; more at once would only wait for one another. */
const together = new Limiter({ running: 2, waiting: SEEDS.length });

test.concurrent.for(SEEDS)('kills by seed %i: exact output, nothing left', { timeout: TEST_TIMEOUT_MS }, (seed, ctx) =>
  together.run('schedules', () =>
    inFolder(async (dir) => {
      const schedule = makeKillSchedule(seed);
      const backing = await stores();
      const report = await runSchedule(schedule, { dir, stores: backing });
      ctx.expect(report.problems, showFailure(schedule, backing, report)).toEqual([]);
    }),
  ),
);
