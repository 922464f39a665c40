import type { KeyedStateHandle } from '../src/contracts/state-handles.ts';
import { keyGroupFor } from '../src/state/key-group-hash.ts';
import type { KeyedStateBackend, ValueState } from '../src/state/ports.ts';
import type { StateBackendsOptions } from '../src/state/state-backends.ts';
import type { Benchmark, BenchResult } from './lib/benchmark.ts';
import { PauseWatch, type Pauses } from './lib/pause-watch.ts';
import { type Measurement, measureRounds, median, speedup } from './lib/rounds.ts';
import { SeededNumbers } from './lib/seeded.ts';
import { fill, increment, MAX_PARALLELISM, StateFolder } from './lib/state-folder.ts';

const KEYS = 5_000_000;
const LARGE_ROUNDS = 3;
/** Key groups, of 128, that records fall into where only few change; and how many keys of them get records. */
const CHANGED_GROUPS = 8;
const CHANGED_KEYS = 20_000;
const SNAPSHOTS = 3;
/** What a job of many keys has in one slot. */
const PROCESSED_KEYS = 100_000;
/** Between two looks at what else waits: a millisecond or less. */
const UPDATES_PER_TURN = 256;
const ROUNDS_MAX = 12;
const BUDGET_MS = 40_000;

/** What checkpoints of state in memory cost: pauses, time, bytes, throughput. */
export const checkpointBench: Benchmark = {
  name: 'checkpoint',
  description:
    'pauses, duration and size of a snapshot (--keys, 5,000,000), throughput while one is taken every second',
  async run({ rounds, keys = KEYS }, say) {
    const folder = await StateFolder.open();
    try {
      return [
        ...(await compareThroughput(folder, Math.min(rounds, ROUNDS_MAX), say)),
        ...(await measureLarge(folder, keys, say)),
      ];
    } finally {
      await folder.close();
    }
  },
};

/** One second of updates, as much work as that is, with a checkpoint in it and without. */
async function compareThroughput(
  folder: StateFolder,
  rounds: number,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
  const kinds: readonly (readonly [string, StateBackendsOptions])[] = [
    ['full', {}],
    ['lz4', { compression: 'lz4' }],
  ];
  const results: BenchResult[] = [];
  for (const [kind, options] of kinds) {
    const backend = await folder.create(options);
    const state = await fill(backend, PROCESSED_KEYS);
    const numbers = new SeededNumbers(5);
    const updates = await updatesInASecond(backend, state, PROCESSED_KEYS);
    let id = 0;
    const anyKey = () => `key-${numbers.below(PROCESSED_KEYS)}`;
    const process = (during: Promise<unknown>) => processUpdates({ backend, state, updates, pick: anyKey }, during);
    const checkpoint = async () => {
      const { handles } = await backend.snapshot(++id).write(new AbortController().signal);
      backend.checkpointCompleted(id);
      await folder.remove(handles);
    };
    const measured = await measureRounds(
      [
        { name: 'without', run: () => process(Promise.resolve()) },
        { name: 'with', run: () => process(checkpoint()) },
      ],
      { rounds, warmupRounds: 1, clock: 'cpu', budgetMs: BUDGET_MS / kinds.length },
    );
    const [without, withOne] = measured as readonly [Measurement, Measurement];
    backend.dispose();
    say(
      `${PROCESSED_KEYS} keys, ${kind}: ${measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M/s`).join(', ')}`,
    );
    results.push({
      name: `throughput with a checkpoint every second (${kind}) / without`,
      value: speedup(withOne, without),
      unit: 'x',
      target: { atLeast: 0.9 },
      against: `the same updates of ${PROCESSED_KEYS} keys`,
    });
  }
  return results;
}

interface Updates {
  readonly backend: KeyedStateBackend;
  readonly state: ValueState<number>;
  readonly updates: number;
  readonly pick: () => string;
}

/** Ends when the updates are done and so is what goes on meanwhile. */
async function processUpdates({ backend, state, updates, pick }: Updates, during: Promise<unknown>): Promise<number> {
  let done = false;
  const ended = during.finally(() => {
    done = true;
  });
  for (let n = 0; n < updates || !done; n += UPDATES_PER_TURN) {
    if (n < updates) for (let i = 0; i < UPDATES_PER_TURN; i++) increment(backend, state, pick());
    await new Promise((resolve) => setImmediate(resolve));
  }
  await ended;
  return updates;
}

async function updatesInASecond(backend: KeyedStateBackend, state: ValueState<number>, keys: number): Promise<number> {
  const numbers = new SeededNumbers(6);
  let updates = 0;
  let last = 0;
  for (let round = 0; round < 3; round++) {
    const { user, system } = process.cpuUsage();
    for (last = 0; cpuSince(user + system) < 300; last += UPDATES_PER_TURN) {
      for (let i = 0; i < UPDATES_PER_TURN; i++) increment(backend, state, `key-${numbers.below(keys)}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    updates = Math.max(updates, last);
  }
  return Math.round(updates / 0.3);
}

function cpuSince(startUs: number): number {
  const { user, system } = process.cpuUsage();
  return (user + system - startUs) / 1e3;
}

/** As many keys as a slot may hold in memory. They are put there once for all figures. */
async function measureLarge(
  folder: StateFolder,
  keys: number,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
  const backend = await folder.create({ incremental: true });
  const filled = { backend, state: await fill(backend, keys), keys };
  try {
    const pauses = await measureSnapshots(folder, filled, say);
    return [...pauses, ...(await compareLargeThroughput(folder, filled, say))];
  } finally {
    backend.dispose();
  }
}

interface Filled {
  readonly backend: KeyedStateBackend;
  readonly state: ValueState<number>;
  readonly keys: number;
}

/**
 * One second of updates with a checkpoint in it: a full one; an incremental one when keys of every key group have
 * changed, which writes as much; an incremental one when those of a few have, which is what it is for.
 */
async function compareLargeThroughput(
  folder: StateFolder,
  { backend, state, keys }: Filled,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
  const numbers = new SeededNumbers(8);
  const updates = await updatesInASecond(backend, state, keys);
  const few = keysOfFewGroups(keys);
  const any: Updates = { backend, state, updates, pick: () => `key-${numbers.below(keys)}` };
  const ofFew: Updates = { ...any, pick: () => `key-${few[numbers.below(few.length)]}` };
  let id = SNAPSHOTS;
  let held: readonly KeyedStateHandle[] = [];
  const checkpoint = async (full: boolean) => {
    const { handles } = await backend.snapshot(++id, { full }).write(new AbortController().signal);
    backend.checkpointCompleted(id);
    await folder.remove(held, handles);
    held = handles;
  };
  const options = { rounds: LARGE_ROUNDS, warmupRounds: 1, clock: 'cpu', budgetMs: BUDGET_MS / 2 } as const;
  const nothing = Promise.resolve();
  const spread = await measureRounds(
    [
      { name: 'without', run: () => processUpdates(any, nothing) },
      { name: 'full', run: () => processUpdates(any, checkpoint(true)) },
      { name: 'incremental', run: () => processUpdates(any, checkpoint(false)) },
    ],
    options,
  );
  await checkpoint(false);
  const narrow = await measureRounds(
    [
      { name: 'without', run: () => processUpdates(ofFew, nothing) },
      { name: 'incremental', run: () => processUpdates(ofFew, checkpoint(false)) },
    ],
    options,
  );
  await folder.remove(held);
  const name = `${keys.toLocaleString('en-US')} keys`;
  const speeds = (measured: readonly Measurement[]) =>
    measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M/s`).join(', ');
  say(`${name}, a checkpoint every second: ${speeds(spread)}; in ${CHANGED_GROUPS} key groups: ${speeds(narrow)}`);
  const [without, full, incremental] = spread as readonly [Measurement, Measurement, Measurement];
  const [withoutFew, incrementalFew] = narrow as readonly [Measurement, Measurement];
  const against = 'the same updates without checkpoints';
  const every = `${name}, throughput with a checkpoint every second`;
  return [
    { name: `${every} (full) / without`, value: speedup(full, without), unit: 'x', against },
    {
      name: `${every} (incremental, all groups change) / without`,
      value: speedup(incremental, without),
      unit: 'x',
      against,
    },
    {
      name: `${every} (incremental, ${CHANGED_GROUPS} of ${MAX_PARALLELISM} groups change) / without`,
      value: speedup(incrementalFew, withoutFew),
      unit: 'x',
      against,
    },
    {
      name: `${name}: processor time of a full checkpoint`,
      value: ((full.nsPerOp - without.nsPerOp) * updates) / 1e6,
      unit: 'ms',
    },
  ];
}

function keysOfFewGroups(keys: number): readonly number[] {
  const few: number[] = [];
  for (let n = 0; n < keys && few.length < CHANGED_KEYS; n++) {
    if (keyGroupFor(`key-${n}`, MAX_PARALLELISM) < CHANGED_GROUPS) few.push(n);
  }
  return few;
}

/** Records go on being processed while the snapshot is written. */
async function measureSnapshots(
  folder: StateFolder,
  { backend, state, keys }: Filled,
  say: (line: string) => void,
): Promise<readonly BenchResult[]> {
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
    const { handles, bytes: size } = await written;
    bytes = size;
    pauses.push(watch.pauses());
    await folder.remove(handles);
  }
  const of = (read: (pause: Pauses) => number) => median(pauses.map(read));
  say(
    `${keys.toLocaleString('en-US')} keys, ${(bytes / 1e6).toFixed(1)} MB: ${of((p) => p.totalMs).toFixed(0)} ms a snapshot, ` +
      `longest pause ${of((p) => p.longestMs).toFixed(1)} ms (${of((p) => p.longestCpuMs).toFixed(1)} ms of CPU)`,
  );
  const name = `snapshot of ${keys.toLocaleString('en-US')} keys`;
  return [
    // Of the CPU time of all threads: on a machine shared with others the clock tells how long those had the cores.
    { name: `${name}: longest pause`, value: of((p) => p.longestCpuMs), unit: 'ms', target: { atMost: 20 } },
    { name: `${name}: longest pause by the clock`, value: of((p) => p.longestMs), unit: 'ms' },
    { name: `${name}: duration while processing`, value: of((p) => p.totalMs), unit: 'ms' },
    { name: `${name}: size`, value: bytes / 1e6, unit: 'MB' },
  ];
}
