import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { roundLines } from './report.ts';
import { SCENARIOS } from './scenarios/index.ts';
import { runRound } from './stage/run-round.ts';
import { World } from './stage/world.ts';

/** Generous: the deadlines inside say what was waited for; this one is for what hangs without saying. */
const TEST_TIMEOUT_MS = 10 * 60_000;

/** The fixed part of the suite: both sinks, timers and two inputs, and moments that no kill meets by chance. */
const FIXED = [
  { name: 'leader-between-object-and-pointer', seed: 1 },
  { name: 'leader-between-pointer-and-notice', seed: 2 },
] as const;

let world: World;
beforeAll(async () => {
  world = await World.open();
}, TEST_TIMEOUT_MS);
afterAll(() => world?.[Symbol.asyncDispose]());

describe('scenarios', () => {
  test.each(FIXED)('$name, seed $seed', { timeout: TEST_TIMEOUT_MS }, async ({ name, seed }) => {
    const scenario = SCENARIOS.find((one) => one.name === name);
    if (scenario === undefined) throw new Error(`there is no scenario ${name}`);
    const report = await runRound(world, scenario, { seed, long: false, settings: [] });
    expect(report.problems, roundLines(report).join('\n')).toEqual([]);
    expect(report.faults.length).toBeGreaterThan(0);
  });
});

test('every file of a scenario is played', () => {
  const folder = join(packageRoot(), 'chaos-tests/scenarios');
  const files = readdirSync(folder).map((file) => file.replace(/\.ts$/, ''));
  const names = SCENARIOS.map(({ name }) => name);
  expect(files.filter((file) => file !== 'index' && file !== 'scenario').sort()).toEqual([...names].sort());
  expect(new Set(names).size).toBe(names.length);
});

test('the report names every scenario that it holds rounds of, by a name that exists', () => {
  const file = join(packageRoot(), 'docs/chaos-report.md');
  const names = new Set(SCENARIOS.map(({ name }) => name));
  expect(existsSync(file)).toBe(true);
  const rows = readFileSync(file, 'utf8').matchAll(/^\| `([a-z0-9-]+)` \|/gm);
  for (const [, name = ''] of rows) expect(names).toContain(name);
});
