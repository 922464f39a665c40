import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { findPackageRoot } from '../../src/program/bundle-folder.ts';
import { simulate } from './simulate.ts';

const run = promisify(execFile);
const program = join(findPackageRoot(), 'dist', 'chaos-tests', 'sim', 'main.js');

async function sim(...args: readonly string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [program, ...args], { maxBuffer: 1e8 });
  return stdout;
}

test('two hundred schedules of faults break no invariant', async () => {
  expect(await sim('--seed', '1', '--seeds', '200', '--stop-after', '1')).toContain('0 with violations');
});

test('the same seed gives the same trace, whatever ran before, in this process and in another', async () => {
  const hashes = async (from: number, to: number) =>
    (await sim('--hashes', '--seed', String(from), '--seeds', String(to - from + 1))).match(/^\d+ [0-9a-f]{16}$/gm) ??
    [];
  const all = await hashes(1_001, 1_006);
  expect(all).toHaveLength(6);
  expect(await hashes(1_004, 1_006)).toEqual(all.slice(3));
  const here = await simulate(1_005);
  expect(`1005 ${here.hash}`).toBe(all[4]);
  // Recording it changes nothing.
  expect((await simulate(1_005, { record: true })).hash).toBe(here.hash);
});
