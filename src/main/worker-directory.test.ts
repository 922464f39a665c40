import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { silentLogger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { WorkerDirectory } from './worker-directory.ts';

const deps = { random: new SystemRandom(), log: silentLogger };
let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'millrace-worker-'));
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

test("a worker's folder lives as long as the worker, beside those of others and what else lies there", async () => {
  mkdirSync(join(parent, 'bundles'));
  const first = await WorkerDirectory.open(parent, deps);
  writeFileSync(join(first.path, 'state'), 'x');
  const second = await WorkerDirectory.open(parent, deps);
  expect(existsSync(join(first.path, 'state'))).toBe(true);
  await first.close();
  await first.close();
  expect(readdirSync(parent).sort()).toEqual(['bundles', basename(second.path)]);
  await second.close();
  expect(readdirSync(parent)).toEqual(['bundles']);
});

test('what a killed worker left goes with the next start, on the same machine', async () => {
  const here = hostname()
    .replaceAll(/[^A-Za-z0-9]/g, '_')
    .slice(0, 40);
  for (const name of [`taskmanager-${here}-${process.pid}-00000000`, `taskmanager-${here}-99999999-0000abcd`]) {
    mkdirSync(join(parent, name, 'slots', '3'), { recursive: true });
    writeFileSync(join(parent, name, 'slots', '3', 'data.mdb'), 'x');
  }
  const elsewhere = 'taskmanager-another_machine-99999999-0000abcd';
  mkdirSync(join(parent, elsewhere));
  const next = await WorkerDirectory.open(parent, deps);
  expect(readdirSync(parent).sort()).toEqual([elsewhere, basename(next.path)].sort());
  await next.close();
});
