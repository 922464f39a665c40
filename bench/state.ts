import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { type Measurement, measureRounds, speedup } from './lib/rounds.ts';
import { vocabulary } from './lib/sample-data.ts';
import { SeededNumbers } from './lib/seeded.ts';
import { increment, StateFolder } from './lib/state-folder.ts';

const UPDATED_KEYS = 100_000;
const UPDATES = 200_000;

/** Keyed state in memory: what key groups cost. */
export const stateBench: Benchmark = {
  name: 'state',
  description: 'updates of key-grouped state against a plain Map',
  async run({ rounds }, say) {
    const backends = await StateFolder.open();
    try {
      return await compareUpdates(backends, rounds, say);
    } finally {
      await backends.close();
    }
  },
};

async function compareUpdates(
  backends: StateFolder,
  rounds: number,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
  const numbers = new SeededNumbers(3);
  const words = vocabulary(UPDATED_KEYS);
  const picked = Array.from({ length: UPDATES }, () => words[numbers.below(words.length)] as string);
  // As from a batch just decoded: a string that nobody has looked up yet has no hash.
  const text = picked.join('');
  const freshKeys = () => {
    let at = 0;
    return picked.map((word) => {
      const from = at;
      at += word.length;
      return text.slice(from, at);
    });
  };
  const cells = new Map<string, { count: number }>();
  const backend = await backends.create();
  const state = backend.valueState<number>('count');
  const contenders = [
    {
      name: 'plain Map',
      run: () => {
        for (const key of freshKeys()) {
          const cell = cells.get(key);
          if (cell === undefined) cells.set(key, { count: 1 });
          else cell.count++;
        }
        return UPDATES;
      },
    },
    {
      name: 'key groups',
      run: () => {
        for (const key of freshKeys()) increment(backend, state, key);
        return UPDATES;
      },
    },
  ];
  const measured = await measureRounds(contenders, { rounds, warmupRounds: 5, clock: 'cpu' });
  const [plain, grouped] = measured as readonly [Measurement, Measurement];
  say(
    `${UPDATED_KEYS} keys: ${measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M updates/s`).join(', ')}`,
  );
  backend.dispose();
  return [
    {
      name: 'key-grouped state / plain Map',
      value: speedup(grouped, plain),
      unit: 'x',
      target: { atLeast: 0.6 },
      against: 'Map of cells',
    },
  ];
}
