import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type ClientContext, disposeSavepoint, runJob, takeSavepoint } from '../src/client/commands.ts';
import { RestClient } from '../src/client/rest-client.ts';
import { SystemClock } from '../src/kernel/clock.ts';
import { SystemRandom } from '../src/kernel/random.ts';
import { CommittedLines, checkOutput, totalWords } from '../src/main/demo/check-output.ts';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { writeInputText } from './input-text.ts';
import { CHAOS_CONFIG } from './run-schedule.ts';

test('a word count is saved, stopped and goes on with another parallelism, over two dead leaders, and counts exactly', {
  timeout: 5 * 60_000,
}, async () => {
  const dir = makeTempFolder('savepoints');
  try {
    const [input, output] = [join(dir, 'input'), join(dir, 'output')];
    writeInputText(input, { lines: 3_000, files: 4 });
    mkdirSync(output);
    await using cluster = await LocalCluster.start({
      dir,
      masters: 3,
      workers: 2,
      slotsPerWorker: 2,
      config: [...CHAOS_CONFIG],
    });
    const clock = new SystemClock();
    const addresses = cluster.masters.map((master) => master.restUrl);
    const rest = new RestClient(clock, { addresses, patienceMs: 60_000 });
    const said: string[] = [];
    const context: ClientContext = {
      rest,
      clock,
      random: new SystemRandom(),
      pack: packJob,
      print: (line) => void said.push(line),
    };
    const last = (pattern: RegExp) => said.flatMap((line) => pattern.exec(line)?.[1] ?? []).at(-1) ?? '';
    const run = async (parallelism: number, fromSavepoint?: string) => {
      const args = ['--input', input, '--output', output, '--parallelism', String(parallelism), '--rate', '600'];
      const file = join(packageRoot(), 'examples/word-count-files.ts');
      const common = { entryClass: undefined, parallelism: undefined, detached: true };
      await runJob(context, { file, args, ...common, fromSavepoint });
      return last(/JobID (\w+)/);
    };
    const [committed, words] = [new CommittedLines(output), totalWords(input)];
    const progress = (share: number) =>
      until(`${share} of the words to be committed`, () => committed.count() >= share * words, {
        timeoutMs: 120_000,
      });
    const killLeader = async () => {
      const leader = await until('a leader', () => cluster.leader());
      await leader.process.kill();
    };

    const first = await run(2);
    await progress(0.15);
    await takeSavepoint(context, first, { targetDirectory: 'weekly', cancelJob: false });
    const weekly = last(/Path: (\S+)/);
    expect(weekly).toContain('/savepoints/weekly/savepoint-');
    await killLeader();
    await progress(0.35);

    // Once accepted, a stop is kept by whoever leads.
    const trigger = await rest.stop(first, { triggerId: context.random.hex(16), drain: false });
    await killLeader();
    const stopped = await until('the stop', async () => {
      const { status, operation } = await rest.savepointStatus(first, trigger);
      return status.id === 'COMPLETED' ? (operation?.location ?? JSON.stringify(operation)) : undefined;
    });
    expect(stopped).toContain('/savepoints/savepoint-');
    expect((await rest.job(first)).state).toBe('FINISHED');

    await disposeSavepoint(context, weekly);
    await expect(disposeSavepoint(context, weekly)).rejects.toThrow('there is no savepoint');

    const second = await run(3, stopped);
    const state = await until(
      'the end',
      async () => {
        const job = await rest.job(second);
        return ['FINISHED', 'FAILED', 'CANCELED'].includes(job.state) ? job.state : undefined;
      },
      { timeoutMs: 120_000 },
    );
    expect(state, (await rest.rootException(second)) ?? said.join('\n')).toBe('FINISHED');
    expect(checkOutput(input, output)).toMatchObject({ pass: true, problems: [] });
    await cluster.stop();
  } finally {
    removeTempFolder(dir);
  }
});
