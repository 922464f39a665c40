import type { StateBackendType } from '../src/contracts/job-graph.ts';
import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { type Measurement, measureRounds, speedup } from './lib/rounds.ts';
import { fill, StateFolder } from './lib/state-folder.ts';

const KEYS = 300_000;
const ROUNDS_MAX = 7;
const BUDGET_MS = 60_000;

/** How long a task waits for its state: the same snapshot into either backend. */
export const restoreBench: Benchmark = {
  name: 'restore',
  description: 'restoring a snapshot (--keys, 300,000) into either backend, against JSON.parse into a Map',
  async run({ rounds, keys = KEYS }, say) {
    const folder = await StateFolder.open();
    try {
      const source = await folder.create();
      await fill(source, keys);
      const { handles, bytes } = await source.snapshot(1).write(new AbortController().signal);
      source.dispose();
      const json = JSON.stringify(Array.from({ length: keys }, (_, i) => [`key-${i}`, 1]));
      const into = (backend: StateBackendType) => async () => {
        const restored = await folder.create({ backend }, handles, 1);
        if (restored.size() !== keys) throw new Error(`${restored.size()} keys were restored`);
        restored.dispose();
        return keys;
      };
      const measured = await measureRounds(
        [
          {
            name: 'JSON',
            run: () => {
              const map = new Map<string, unknown>();
              for (const [key, value] of JSON.parse(json) as [string, unknown][]) map.set(key, { value });
              return map.size;
            },
          },
          { name: 'hashmap', run: into('hashmap') },
          { name: 'lmdb', run: into('lmdb') },
        ],
        { rounds: Math.min(rounds, ROUNDS_MAX), warmupRounds: 1, clock: 'cpu', budgetMs: BUDGET_MS },
      );
      const [baseline, hashmap, lmdb] = measured as readonly [Measurement, Measurement, Measurement];
      say(`${(bytes / 1e6).toFixed(1)} MB of state, ${keys.toLocaleString('en-US')} keys`);
      return [...resultsOf(hashmap, baseline), ...resultsOf(lmdb, baseline)];
    } finally {
      await folder.close();
    }
  },
};

function resultsOf(measured: Measurement, baseline: Measurement): readonly BenchResult[] {
  const { name } = measured;
  return [
    { name: `restore into ${name}, a million keys`, value: measured.nsPerOp, unit: 'ms' },
    {
      name: `restore into ${name} / JSON`,
      value: speedup(measured, baseline),
      unit: 'x',
      against: 'JSON.parse into a Map',
    },
  ];
}
