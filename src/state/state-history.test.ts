import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { StateBackendsOptions } from './state-backends.ts';
import { StateHistory, step } from './testing/state-history.ts';

const HEAP: readonly StateBackendsOptions[] = [
  { memoryThresholdBytes: 0 },
  { memoryThresholdBytes: 200, compression: 'gzip' },
  { memoryThresholdBytes: 0, compression: 'lz4' },
];
const INCREMENTAL: readonly StateBackendsOptions[] = [
  { memoryThresholdBytes: 0, incremental: true },
  { memoryThresholdBytes: 200, incremental: true },
  { memoryThresholdBytes: 0 },
];

const directory = mkdtempSync(join(tmpdir(), 'millrace-state-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** With hardly any memory, so that rows are written and read again all the time. */
const tight = { directory, cacheBytes: 4_000, dirtyRowsMax: 6 };
const LMDB: readonly StateBackendsOptions[] = [
  { memoryThresholdBytes: 0, backend: 'lmdb', lmdb: { directory } },
  { memoryThresholdBytes: 200, backend: 'lmdb', lmdb: tight },
  { memoryThresholdBytes: 0, backend: 'lmdb', lmdb: tight, incremental: true },
];

test('every kind of state, with and without time-to-live, does as a naive model does, over checkpoints and restarts', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 14 }), fc.integer({ min: 1, max: 2 }), async (steps, retained) => {
      await new StateHistory(HEAP, retained).play(steps);
    }),
    { numRuns: Number(process.env.MILLRACE_PROPERTY_RUNS ?? 150) },
  );
}, 600_000);

test('incremental checkpoints restore the same, though objects go as soon as no retained checkpoint refers to them', async () => {
  let shared = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), fc.integer({ min: 1, max: 2 }), async (steps, retained) => {
      const history = new StateHistory(INCREMENTAL, retained);
      await history.play(steps);
      shared += history.shared;
    }),
    // Without a wish for more, always the same histories: what they must reach is then reached always.
    process.env.MILLRACE_PROPERTY_RUNS === undefined
      ? { numRuns: 200, seed: 7 }
      : { numRuns: Math.max(200, Number(process.env.MILLRACE_PROPERTY_RUNS)) },
  );
  expect(shared).toBeGreaterThan(10);
}, 600_000);

test('state on disk does the same, and what one backend wrote restores into the other', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.integer({ min: 1, max: 2 }), async (steps, retained) => {
      await new StateHistory([...LMDB, ...INCREMENTAL, ...HEAP], retained).play(steps);
    }),
    { numRuns: Number(process.env.MILLRACE_PROPERTY_RUNS ?? 60) },
  );
  // Nothing of all the restarts is left.
  expect(readdirSync(directory)).toEqual([]);
}, 600_000);
