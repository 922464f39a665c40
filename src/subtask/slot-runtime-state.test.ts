import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { stateKeysOf } from '../../ha/stores/checkpoint-pointers.ts';
import { until } from '../../test-support/until.ts';
import type {
  BroadcastState,
  CheckpointedFunction,
  FunctionInitializationContext,
  OperatorListState,
} from '../api/checkpointed-function.ts';
import type { StreamExecutionEnvironment } from '../api/environment.ts';
import type { Collector } from '../api/functions.ts';
import {
  type KeyedContext,
  KeyedCoProcessFunction,
  KeyedProcessFunction,
  type KeyedRuntimeContext,
} from '../api/process-function.ts';
import type { Sink } from '../api/sink.ts';
import type { Source } from '../api/source.ts';
import {
  type AggregatingState,
  AggregatingStateDescriptor,
  type KeyedStateStore,
  type ListState,
  ListStateDescriptor,
  type MapState,
  MapStateDescriptor,
  type ReducingState,
  ReducingStateDescriptor,
  type ValueState,
  ValueStateDescriptor,
} from '../api/state.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import type { StateBackendsOptions } from '../state/state-backends.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { rangeSource, type RangeRecord, type RangeSplit, Valve } from './testing/range-source.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

const clusters: SlotCluster[] = [];

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

async function cluster(
  slots: number,
  options: StateBackendsOptions = { memoryThresholdBytes: 0, incremental: true },
  from?: { readonly predecessor?: SlotCluster; readonly clock?: Clock },
): Promise<SlotCluster> {
  const made = new SlotCluster(from?.predecessor?.objects, options, from?.clock);
  clusters.push(made);
  await made.addSlots(slots, { subtask: { closeTimeoutMs: 500 } });
  return made;
}

const shared = (metadata: CheckpointMetadata) => [...stateKeysOf(metadata)].filter((key) => key.includes('/shared/'));

test('checkpoints share what has not changed; a savepoint is whole, and no checkpoint refers to it', async () => {
  const slots = await cluster(1);
  const sink = new GatedSink<RangeRecord>();
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([500], new Valve(), { endless: true }))
      .keyBy(({ n }: RangeRecord) => n)
      .reduce((_, b) => b)
      .sinkTo(sink.sink());
  });
  await slots.deploy(program);
  await until('all records', () => sink.written.length === 500);
  const first = await slots.checkpoint(program, 1);
  slots.complete(1);
  const second = await slots.checkpoint(program, 2, { kind: 'SAVEPOINT' });
  slots.complete(2);
  const third = await slots.checkpoint(program, 3);
  expect(shared(first)).toHaveLength(1);
  expect(shared(second)).toEqual([]);
  expect(stateKeysOf(second).size).toBeGreaterThan(0);
  expect(shared(third)).toEqual(shared(first));
});

/** What all states of a key show after a record. */
interface Seen {
  readonly key: number;
  readonly n: number;
  readonly count: number;
  readonly last: readonly number[];
  readonly byDigit: readonly (readonly [number, number])[];
  readonly sum: number;
  readonly mean: number;
  /** Of the state that expires. */
  readonly recent: number;
}

const TTL_MS = 1_000;

/** One of each kind of state, for functions of one and of two inputs. */
class AllStates {
  private readonly count: ValueState<number>;
  private readonly last: ListState<number>;
  private readonly byDigit: MapState<number, number>;
  private readonly sum: ReducingState<number>;
  private readonly mean: AggregatingState<number, number>;
  private readonly recent: ValueState<number>;

  constructor(store: KeyedStateStore) {
    this.count = store.getState(new ValueStateDescriptor('count', { defaultValue: 0 }));
    this.last = store.getListState(new ListStateDescriptor<number>('last'));
    this.byDigit = store.getMapState(new MapStateDescriptor<number, number>('byDigit'));
    this.sum = store.getReducingState(new ReducingStateDescriptor('sum', (a: number, b: number) => a + b));
    this.mean = store.getAggregatingState(
      new AggregatingStateDescriptor('mean', {
        createAccumulator: () => ({ sum: 0, count: 0 }),
        add: (n: number, all) => ({ sum: all.sum + n, count: all.count + 1 }),
        getResult: ({ sum, count }) => sum / count,
      }),
    );
    this.recent = store.getState(new ValueStateDescriptor<number>('recent', { ttl: { ttlMs: TTL_MS } }));
  }

  add(key: number, n: number): Seen {
    this.count.update((this.count.value() ?? Number.NaN) + 1);
    this.last.update([...this.last.get().slice(-2), n]);
    this.byDigit.put(n % 10, (this.byDigit.get(n % 10) ?? 0) + 1);
    this.sum.add(n);
    this.mean.add(n);
    this.recent.update((this.recent.value() ?? 0) + 1);
    return {
      key,
      n,
      count: this.count.value() ?? Number.NaN,
      last: this.last.get(),
      byDigit: [...this.byDigit.entries()].sort(([a], [b]) => a - b),
      sum: this.sum.get() ?? Number.NaN,
      mean: this.mean.get() ?? Number.NaN,
      recent: this.recent.value() ?? Number.NaN,
    };
  }
}

class OneInput extends KeyedProcessFunction<number, RangeRecord, Seen> {
  private states: AllStates | undefined;

  override open(context: KeyedRuntimeContext): void {
    this.states = new AllStates(context);
  }

  processElement({ n }: RangeRecord, ctx: KeyedContext<number>, out: Collector<Seen>): void {
    out.collect((this.states as AllStates).add(ctx.getCurrentKey(), n));
  }
}

class TwoInputs extends KeyedCoProcessFunction<number, RangeRecord, RangeRecord, Seen> {
  processElement1({ n }: RangeRecord, ctx: KeyedContext<number>, out: Collector<Seen>): void {
    // Asked for at each record, as a function that is one object for all subtasks does.
    out.collect(new AllStates(ctx).add(ctx.getCurrentKey(), n));
  }

  processElement2({ n }: RangeRecord, ctx: KeyedContext<number>, out: Collector<Seen>): void {
    out.collect(new AllStates(ctx).add(ctx.getCurrentKey(), n));
  }
}

const KEYS = 7;

/** What a naive program sees of the numbers below `end`, from each of `splits` splits. */
function expected(splits: number, end: number): { readonly counts: number; readonly sums: number } {
  return { counts: splits * end, sums: (splits * end * (end - 1)) / 2 };
}

function totals(seen: readonly Seen[]): { readonly counts: number; readonly sums: number } {
  const latest = new Map<number, Seen>();
  for (const one of seen) if ((latest.get(one.key)?.count ?? 0) < one.count) latest.set(one.key, one);
  for (const one of seen) {
    // The kinds agree with each other at each record.
    expect(one.byDigit.reduce((sum, [, times]) => sum + times, 0)).toBe(one.count);
    expect(one.mean).toBeCloseTo(one.sum / one.count);
    expect(one.last.at(-1)).toBe(one.n);
    expect(one.last).toHaveLength(Math.min(3, one.count));
  }
  const all = [...latest.values()];
  return { counts: all.reduce((sum, { count }) => sum + count, 0), sums: all.reduce((sum, one) => sum + one.sum, 0) };
}

const FUNCTIONS: Readonly<
  Record<string, { splits: number; build: (env: StreamExecutionEnvironment, valve: Valve, sink: Sink<Seen>) => void }>
> = {
  'a function of one input': {
    splits: 1,
    build: (env, valve, sink) => {
      env
        .fromSource(rangeSource([1e9], valve, { endless: true }))
        .uid('a')
        .setParallelism(1)
        .keyBy(({ n }) => n % KEYS)
        .process(() => new OneInput())
        .uid('process')
        .sinkTo(sink);
    },
  },
  'a function of two inputs': {
    splits: 2,
    build: (env, valve, sink) => {
      const one = env
        .fromSource(rangeSource([1e9], valve, { endless: true }))
        .uid('a')
        .setParallelism(1);
      const two = env
        .fromSource(rangeSource([1e9], valve, { endless: true }))
        .uid('b')
        .setParallelism(1);
      one
        .connect(two)
        .keyBy(
          ({ n }) => n % KEYS,
          ({ n }) => n % KEYS,
        )
        .process(new TwoInputs())
        .uid('process')
        .sinkTo(sink);
    },
  },
};

for (const [what, { splits, build }] of Object.entries(FUNCTIONS)) {
  for (const backend of ['hashmap', 'lmdb'] as const) {
    test(`${what} finds every kind of state again after a restore with another parallelism (${backend})`, async () => {
      let nowMs = 1_000_000;
      const stateClock = Object.assign(new SystemClock(), { wallMs: () => nowMs });
      const directory = mkdtempSync(join(tmpdir(), 'millrace-slot-state-'));
      const options = { memoryThresholdBytes: 0, backend, lmdb: { directory } };
      try {
        const [sink, valve] = [new GatedSink<Seen>(), new Valve(30)];
        const main = (parallelism: number) => (env: StreamExecutionEnvironment) => {
          env.enableCheckpointing(60_000);
          env.setBufferTimeout(1);
          env.setParallelism(parallelism);
          build(env, valve, sink.sink());
        };
        const slots = await cluster(2, options, { clock: stateClock });
        const program = await slots.program(main(2));
        await slots.deploy(program);
        await until('the first records', () => sink.written.length === splits * 30);
        expect(totals(sink.written)).toEqual(expected(splits, 30));
        expect(sink.written.every(({ recent, count }) => recent === count)).toBe(true);
        const metadata = await slots.checkpoint(program, 1);
        await slots.close();
        nowMs += TTL_MS;
        const again = await cluster(3, options, { predecessor: slots, clock: stateClock });
        const restored = await again.program(main(3));
        await again.deploy(restored, metadata);
        valve.open(70);
        await until('the others', () => sink.written.length === splits * 70);
        expect(totals(sink.written)).toEqual(expected(splits, 70));
        const after = sink.written.slice(splits * 30);
        // What had expired counts from one again; everything else goes on.
        expect(Math.min(...after.map(({ recent }) => recent))).toBe(1);
        expect(after.every(({ recent, count }) => recent < count)).toBe(true);
        await again.close();
        await until('the folders to go', () => readdirSync(directory).length === 0);
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    });
  }
}

test('a state used where there is no key, or asked for by a wrong descriptor, is refused with a hint', async () => {
  const attempts: Readonly<Record<string, (context: KeyedRuntimeContext) => void>> = {
    'there is no key': (context) => context.getState(new ValueStateDescriptor<number>('v')).update(1),
    'descriptor of a map state': (context) => context.getMapState(new ListStateDescriptor('l') as never),
    'cannot be the name of a state': (context) => context.getState({ name: 'millrace.timers.event' }),
    'cannot be used as list state': (context) => {
      context.getState(new ValueStateDescriptor('v'));
      context.getListState(new ListStateDescriptor('v'));
    },
  };
  for (const [message, open] of Object.entries(attempts)) {
    class Wrong extends KeyedProcessFunction<number, RangeRecord, number> {
      override open(context: KeyedRuntimeContext): void {
        open(context);
      }
      processElement(): void {}
    }
    const slots = await cluster(1);
    const program = await slots.program((env) =>
      env
        .fromSource(rangeSource([1]))
        .keyBy(({ n }: RangeRecord) => n)
        .process(new Wrong())
        .sinkTo(new GatedSink().sink()),
    );
    await slots.deploy(program);
    const report = (await slots.ended()).find(({ state }) => state === 'FAILED');
    expect(report?.error?.message).toContain(message);
  }
});

/** What the instances of an operator hold: by subtask, the items of each mode. */
interface Holding {
  readonly list: readonly string[];
  readonly union: readonly string[];
  readonly rules: readonly (readonly [string, number])[];
}

/** Operator state of each mode, as a source, a process function and a sink may have it. */
class Holder implements CheckpointedFunction {
  private list: OperatorListState<string> | undefined;
  private union: OperatorListState<string> | undefined;
  private rules: BroadcastState<string, number> | undefined;

  constructor(
    private readonly who: string,
    private readonly subtask: () => number,
    private readonly restored: Map<string, Holding>,
  ) {}

  initializeState(context: FunctionInitializationContext): void {
    const store = context.getOperatorStateStore();
    this.list = store.getListState(new ListStateDescriptor<string>('list'));
    this.union = store.getUnionListState(new ListStateDescriptor<string>('union'));
    this.rules = store.getBroadcastState(new MapStateDescriptor<string, number>('rules'));
    if (!context.isRestored()) return;
    expect(context.getRestoredCheckpointId()).toBe(1);
    this.restored.set(`${this.who}-${this.restored.size}`, {
      list: [...this.list.get()],
      union: [...this.union.get()],
      rules: [...this.rules.entries()],
    });
  }

  snapshotState(): void {
    const own = `${this.who}${this.subtask()}`;
    this.list?.update([`${own}-a`, `${own}-b`, `${own}-c`]);
    this.union?.update([own]);
    this.rules?.putAll([
      ['x', 1],
      ['y', 2],
    ]);
    this.rules?.remove('y');
  }
}

class HoldingProcess extends KeyedProcessFunction<number, RangeRecord, number> implements CheckpointedFunction {
  private subtask = -1;
  private readonly holder: Holder;

  constructor(restored: Map<string, Holding>) {
    super();
    this.holder = new Holder('process', () => this.subtask, restored);
  }

  initializeState(context: FunctionInitializationContext): void {
    expect(context.getKeyedStateStore().getState({ name: 'v' })).toBeDefined();
    this.holder.initializeState(context);
  }

  snapshotState(): void {
    this.holder.snapshotState();
  }

  override open({ subtaskIndex }: KeyedRuntimeContext): void {
    this.subtask = subtaskIndex;
  }

  processElement({ n }: RangeRecord, _: KeyedContext<number>, out: Collector<number>): void {
    out.collect(n);
  }
}

function holdingSource(valve: Valve, restored: Map<string, Holding>): Source<RangeRecord, RangeSplit> {
  const inner = rangeSource([1e9, 1e9], valve, { endless: true });
  return {
    ...inner,
    createReader: (context) => {
      const holder = new Holder('source', () => context.subtaskIndex, restored);
      return Object.assign(inner.createReader(context), {
        initializeState: (initialization: FunctionInitializationContext) => holder.initializeState(initialization),
        snapshotState: () => holder.snapshotState(),
      });
    },
  };
}

function holdingSink<T>(restored: Map<string, Holding>, twoPhase: boolean): Sink<T> {
  const who = twoPhase ? 'transactions' : 'sink';
  const plain: Sink<T> = {
    name: who,
    createWriter: (context) => {
      const holder = new Holder(who, () => context.subtaskIndex, restored);
      const life = {
        open: async () => undefined,
        write: () => undefined,
        ready: () => undefined,
        flush: async () => undefined,
        close: async () => undefined,
        prepareCommit: async (checkpointId: number) => [`${checkpointId}`],
        commit: async () => undefined,
      };
      return Object.assign(life, {
        initializeState: (initialization: FunctionInitializationContext) => holder.initializeState(initialization),
        snapshotState: () => holder.snapshotState(),
      });
    },
  };
  return (twoPhase ? { ...plain, twoPhaseCommit: true } : plain) as Sink<T>;
}

test('list, union and broadcast state of sources, process functions and sinks is dealt out anew on a rescale', async () => {
  const valve = new Valve(20);
  for (const parallelism of [1, 2, 3]) {
    const restored = new Map<string, Holding>();
    const main = (width: number) => (env: StreamExecutionEnvironment) => {
      env.enableCheckpointing(60_000);
      env.setParallelism(width);
      const numbers = env
        .fromSource(holdingSource(valve, restored))
        .uid('source')
        .keyBy(({ n }) => n)
        .process(() => new HoldingProcess(restored))
        .uid('process');
      numbers.sinkTo(holdingSink(restored, false)).uid('sink');
      numbers.sinkTo(holdingSink(restored, true)).uid('transactions');
    };
    const slots = await cluster(2);
    const program = await slots.program(main(2));
    await slots.deploy(program);
    await slots.running();
    const metadata = await slots.checkpoint(program, 1);
    await slots.close();
    expect(restored.size).toBe(0);
    const again = await cluster(parallelism, undefined, { predecessor: slots });
    const rescaled = await again.program(main(parallelism));
    await again.deploy(rescaled, metadata);
    await again.running();
    for (const who of ['source', 'process', 'sink', 'transactions']) {
      const held = [...restored].filter(([name]) => name.startsWith(`${who}-`)).map(([, holding]) => holding);
      expect(held).toHaveLength(parallelism);
      const items = held.flatMap(({ list }) => list).sort();
      expect(items).toEqual([0, 1].flatMap((i) => ['a', 'b', 'c'].map((item) => `${who}${i}-${item}`)));
      expect(Math.max(...held.map(({ list }) => list.length))).toBe(6 / parallelism);
      for (const { union, rules } of held) {
        expect([...union].sort()).toEqual([`${who}0`, `${who}1`]);
        expect(rules).toEqual([['x', 1]]);
      }
    }
  }
});

test('operator state stays with an operator whose function asks for it no more, and is refused under another mode', async () => {
  const valve = new Valve(5);
  const restored = new Map<string, Holding>();
  const main = (fn: () => KeyedProcessFunction<number, RangeRecord, number>) => (env: StreamExecutionEnvironment) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([1e9], valve, { endless: true }))
      .uid('source')
      .keyBy(({ n }) => n)
      .process(fn)
      .uid('process')
      .sinkTo(new GatedSink<number>().sink());
  };
  class Forgetful extends KeyedProcessFunction<number, RangeRecord, number> {
    processElement(): void {}
  }
  class OtherMode extends Forgetful implements CheckpointedFunction {
    initializeState(context: FunctionInitializationContext): void {
      context.getOperatorStateStore().getListState(new ListStateDescriptor<string>('union'));
    }
    snapshotState(): void {}
  }
  const first = await cluster(1);
  const program = await first.program(main(() => new HoldingProcess(restored)));
  await first.deploy(program);
  await first.running();
  let metadata = await first.checkpoint(program, 1);
  await first.close();
  const second = await cluster(1, undefined, { predecessor: first });
  const forgetful = await second.program(main(() => new Forgetful()));
  await second.deploy(forgetful, metadata);
  await second.running();
  metadata = { ...(await second.checkpoint(forgetful, 2)), checkpointId: 1 };
  await second.close();
  const third = await cluster(1, undefined, { predecessor: second });
  await third.deploy(await third.program(main(() => new HoldingProcess(restored))), metadata);
  await third.running();
  expect([...restored.values()]).toMatchObject([{ union: ['process0'] }]);
  await third.close();
  const fourth = await cluster(1, undefined, { predecessor: third });
  await fourth.deploy(await fourth.program(main(() => new OtherMode())), metadata);
  await until('the failure', () => fourth.reports().some(({ state }) => state === 'FAILED'));
  const failed = fourth.reports().find(({ state }) => state === 'FAILED');
  expect(failed?.error).toMatchObject({ code: 'CONFLICT' });
  expect(failed?.error?.message).toContain("'user/union' was written as UNION, not as SPLIT");
});
