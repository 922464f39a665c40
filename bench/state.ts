import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DirectoryObjectStore } from '../ha/objects/directory-object-store.ts';
import { SystemClock } from '../src/kernel/clock.ts';
import { asFencingToken, asOperatorId, deploymentId, newAttemptId, newJobId } from '../src/kernel/ids.ts';
import { silentLogger } from '../src/kernel/log.ts';
import { SystemRandom } from '../src/kernel/random.ts';
import type { KeyedStateBackend, ValueState } from '../src/state/ports.ts';
import { createStateBackends } from '../src/state/state-backends.ts';
import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { type Measurement, measureRounds, median, speedup } from './lib/rounds.ts';
import { vocabulary } from './lib/sample-data.ts';
import { SeededNumbers } from './lib/seeded.ts';

const MAX_PARALLELISM = 128;
const UPDATED_KEYS = 100_000;
const UPDATES = 200_000;
const SNAPSHOTS = 3;
/** Between two looks at the clock while a snapshot is written. */
const UPDATES_PER_TURN = 256;

/** Keyed state in memory: what key groups cost, and for how long a snapshot holds up the processing. */
export const stateBench: Benchmark = {
  name: 'state',
  description: 'updates of key-grouped state against a plain Map, and the longest pause of a snapshot (--keys)',
  async run({ rounds, keys }, say) {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-'));
    const backends = await HeapBackends.open(folder);
    try {
      return [...(await compareUpdates(backends, rounds, say)), ...(await measurePauses(backends, keys, say))];
    } finally {
      await backends.close();
      await rm(folder, { recursive: true, force: true });
    }
  },
};

async function compareUpdates(
  backends: HeapBackends,
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

async function measurePauses(
  backends: HeapBackends,
  keys: number,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
  const backend = await backends.create();
  const state = backend.valueState<number>('count');
  for (let i = 0; i < keys; i++) increment(backend, state, `key-${i}`);
  const pauses: Pauses[] = [];
  let bytes = 0;
  for (let i = 0; i < SNAPSHOTS; i++) {
    const watch = new PauseWatch();
    const pending = backend.snapshot(i + 1);
    let done = false;
    const written = pending.write(new AbortController().signal).finally(() => {
      done = true;
    });
    const numbers = new SeededNumbers(i);
    while (!done) {
      watch.turnBegins();
      for (let n = 0; n < UPDATES_PER_TURN; n++) increment(backend, state, `key-${numbers.below(keys)}`);
      watch.turnEnds();
      await new Promise((resolve) => setImmediate(resolve));
    }
    watch.turnBegins();
    bytes = (await written).bytes;
    pauses.push(watch.pauses());
  }
  backend.dispose();
  const of = (read: (pause: Pauses) => number) => median(pauses.map(read));
  say(
    `${keys.toLocaleString('en-US')} keys, ${(bytes / 1e6).toFixed(1)} MB: ${of((p) => p.totalMs).toFixed(0)} ms a snapshot, ` +
      `longest pause ${of((p) => p.longestMs).toFixed(1)} ms (${of((p) => p.longestCpuMs).toFixed(1)} ms of CPU)`,
  );
  const name = `snapshot of ${keys.toLocaleString('en-US')} keys`;
  return [
    {
      name: `${name}: longest pause`,
      value: of((p) => p.longestMs),
      unit: 'ms',
      target: { atMost: 20 },
    },
    { name: `${name}: longest pause, CPU time`, value: of((p) => p.longestCpuMs), unit: 'ms' },
    { name: `${name}: duration while processing`, value: of((p) => p.totalMs), unit: 'ms' },
    { name: `${name}: size`, value: bytes / 1e6, unit: 'MB' },
  ];
}

function increment(backend: KeyedStateBackend, state: ValueState<number>, key: string): void {
  backend.setCurrentKey(key);
  state.update((state.value() ?? 0) + 1);
}

interface Pauses {
  readonly totalMs: number;
  readonly longestMs: number;
  readonly longestCpuMs: number;
}

/** For how long processing waited between two of its turns. */
class PauseWatch {
  private readonly startMs = performance.now();
  private endMs = performance.now();
  private endCpuMs = cpuMs();
  private longestMs = 0;
  private longestCpuMs = 0;

  turnBegins(): void {
    this.longestMs = Math.max(this.longestMs, performance.now() - this.endMs);
    // Without the time for which another process had the core.
    this.longestCpuMs = Math.max(this.longestCpuMs, cpuMs() - this.endCpuMs);
  }

  turnEnds(): void {
    this.endMs = performance.now();
    this.endCpuMs = cpuMs();
  }

  pauses(): Pauses {
    const { longestMs, longestCpuMs } = this;
    return { totalMs: performance.now() - this.startMs, longestMs, longestCpuMs };
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

/** State as a subtask gets it, with snapshots in a folder. */
class HeapBackends {
  private constructor(private readonly objects: DirectoryObjectStore) {}

  static async open(directory: string): Promise<HeapBackends> {
    const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
    return new HeapBackends(await DirectoryObjectStore.start(deps, { directory, fsync: false }));
  }

  create(): Promise<KeyedStateBackend> {
    const random = new SystemRandom();
    return createStateBackends({ objects: this.objects }).createKeyedStateBackend({
      scope: {
        jobId: newJobId(random),
        deployment: deploymentId(asFencingToken(1n), 1),
        operatorId: asOperatorId(random.hex(16)),
        attemptId: newAttemptId(random),
        subtaskIndex: 0,
      },
      range: { first: 0, last: MAX_PARALLELISM - 1 },
      maxParallelism: MAX_PARALLELISM,
      restore: [],
      signal: new AbortController().signal,
    });
  }

  close(): Promise<void> {
    return this.objects.close();
  }
}
