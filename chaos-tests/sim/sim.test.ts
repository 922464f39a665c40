import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { findPackageRoot } from '../../src/program/bundle-folder.ts';
import { simulate } from './simulate.ts';

const run = promisify(execFile);

async function program(name: string, ...args: readonly string[]): Promise<string> {
  const file = join(findPackageRoot(), 'dist', 'chaos-tests', 'sim', name);
  const { stdout } = await run(process.execPath, [file, ...args], { maxBuffer: 1e8 });
  return stdout;
}

test('a hundred schedules of faults break no invariant', async () => {
  expect(await program('main.js', '--seed', '1', '--seeds', '100', '--stop-after', '1')).toContain('0 with violations');
});

test('the same seed gives the same trace, whatever ran before, in this process and in another', async () => {
  const hashes = async (from: number, seeds: number) =>
    (await program('main.js', '--hashes', '--seed', String(from), '--seeds', String(seeds))).match(
      /^\d+ [0-9a-f]{16}$/gm,
    ) ?? [];
  const all = await hashes(1_001, 4);
  expect(all).toHaveLength(4);
  expect(await hashes(1_003, 2)).toEqual(all.slice(2));
  const here = await simulate(1_003);
  expect(`1003 ${here.hash}`).toBe(all[2]);
  // Recording it changes nothing.
  expect((await simulate(1_003, { record: true })).hash).toBe(here.hash);
});

test('known bugs are caught when they are planted', async () => {
  const bugs = ['drop-the-fence', 'answered-before-durable', 'accept-lower-tokens', 'restore-the-oldest'];
  const only = bugs.flatMap((bug) => ['--only', bug]);
  expect(await program('mutants-main.js', '--seeds', '100', ...only)).toContain('4 of 4 mutants caught');
});
