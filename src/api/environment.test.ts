import { afterEach, beforeEach, expect, test } from 'vitest';
import type { StreamGraph } from '../graph/stream-graph.ts';
import { asJobId } from '../kernel/ids.ts';
import { installConnectors } from './builtin-connectors.ts';
import { StreamExecutionEnvironment } from './environment.ts';
import { enterPlanContext, installLocalExecutor, type PlannableEnvironment } from './execution-context.ts';
import { DEFAULT_JOB_CONFIG, RestartStrategies } from './job-settings.ts';
import type { OperatorDefinition } from './operator-definition.ts';
import { discardingSink, emptySource, memoryConnectors } from './testing/memory-connectors.ts';

type Graph = StreamGraph<OperatorDefinition>;

beforeEach(() => installConnectors(memoryConnectors));

let leave = () => {};
afterEach(() => leave());

function planned(parallelism = 1): {
  env: StreamExecutionEnvironment;
  captured: Graph[];
  made: PlannableEnvironment[];
} {
  const captured: Graph[] = [];
  const made: PlannableEnvironment[] = [];
  leave();
  leave = enterPlanContext({
    kind: 'plan',
    defaults: { parallelism, config: DEFAULT_JOB_CONFIG },
    created: (environment) => made.push(environment),
    captured: (graph) => captured.push(graph),
  });
  return { env: StreamExecutionEnvironment.getExecutionEnvironment(), captured, made };
}

const shape = (graph: Graph) => graph.nodes.map((node) => `${node.name} x${node.parallelism}`);
const edges = (graph: Graph) => graph.edges.map((edge) => `${edge.sourceNode} ${edge.partitioner} ${edge.targetNode}`);

test('the first word count builds source, flat map, keyed sum and sink', () => {
  const { env } = planned();
  env
    .fromElements('Hello World', 'Hello Flink')
    .flatMap((line: string) =>
      line
        .toLowerCase()
        .split(/\W+/)
        .filter(Boolean)
        .map((w) => [w, 1] as const),
    )
    .keyBy(([word]) => word)
    .sum(1)
    .print();
  const graph = env.getStreamGraph('WordCount Example');
  expect(shape(graph)).toEqual([
    'Source: Collection Source x1',
    'Flat Map x1',
    'Keyed Aggregation x1',
    'Sink: Print x1',
  ]);
  expect(edges(graph)).toEqual(['1 FORWARD 2', '2 HASH 3', '3 FORWARD 4']);
  expect(graph.edges[1]?.keySelector?.(['hello', 1])).toBe('hello');
  expect(graph.name).toBe('WordCount Example');
});

test('where parallelism changes records are rebalanced, and the wish of an author comes first', () => {
  const { env } = planned(2);
  env
    .fromElements(1)
    .map((n) => n)
    .setParallelism(4)
    .rescale()
    .filter(Boolean)
    .broadcast()
    .print()
    .setParallelism(3);
  const graph = env.getStreamGraph();
  expect(edges(graph)).toEqual(['1 REBALANCE 2', '2 RESCALE 3', '3 BROADCAST 4']);
  expect(shape(graph)).toEqual(['Source: Collection Source x1', 'Map x4', 'Filter x2', 'Sink: Print x3']);
});

test('names, uids, groups and chaining are those of the operator just made', () => {
  const { env } = planned();
  const source = env.fromSource(emptySource<number>('numbers'), 'orders').uid('u1').slotSharingGroup('io');
  source
    .map((n) => n + 1)
    .name('plus one')
    .uid('u2')
    .disableChaining()
    .print('p')
    .name('out')
    .uid('u3');
  source
    .filter((n) => n > 1)
    .startNewChain()
    .setMaxParallelism(7)
    .slotSharingGroup('default')
    .global()
    .print();
  const [orders, plus, out, filter, print] = env.getStreamGraph().nodes;
  expect(orders).toMatchObject({ name: 'Source: orders', uid: 'u1', slotSharingGroup: 'io', kind: 'source' });
  expect(plus).toMatchObject({ name: 'plus one', uid: 'u2', chaining: 'never', slotSharingGroup: 'io' });
  expect(out).toMatchObject({ name: 'Sink: out', uid: 'u3', kind: 'sink', maxParallelism: 128 });
  expect(filter).toMatchObject({ chaining: 'head', maxParallelism: 7, slotSharingGroup: 'default' });
  expect(print).toMatchObject({ slotSharingGroup: 'default', twoPhaseCommit: false });
});

test('a union reads all its streams', () => {
  const { env } = planned();
  const a = env.fromElements(1);
  a.union(env.fromElements(2), a)
    .keyBy((n) => n)
    .reduce((x, y) => x + y)
    .print();
  expect(edges(env.getStreamGraph())).toEqual(['1 HASH 3', '2 HASH 3', '1 HASH 3', '3 FORWARD 4']);
});

test('a two-phase-commit sink is known as such', () => {
  const { env } = planned();
  env.fromElements('a').sinkTo({
    name: 'files',
    twoPhaseCommit: true,
    createWriter: () => ({
      open: () => Promise.resolve(),
      write() {},
      ready: () => undefined,
      prepareCommit: () => Promise.resolve([]),
      commit: () => Promise.resolve(),
      close: () => Promise.resolve(),
    }),
  });
  expect(env.getStreamGraph().nodes[1]).toMatchObject({ name: 'Sink: files', twoPhaseCommit: true });
});

test('streams that nothing reads are part of the job, sources that nothing reads are not', () => {
  const { env } = planned();
  env.fromElements('unread');
  const words = env.fromElements('a');
  words.map((w) => w);
  words.print();
  expect(shape(env.getStreamGraph())).toEqual(['Source: Collection Source x1', 'Map x1', 'Sink: Print x1']);
});

test('wrong use is refused at the call, with the reason', () => {
  const { env } = planned();
  const stream = env.fromElements('a');
  const untyped = stream as unknown as { map(fn: unknown): void; keyBy(fn: unknown): void; sinkTo(s: unknown): void };
  const invalid = (message: RegExp) =>
    expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(message) });
  expect(() => env.setParallelism(0)).toThrow(invalid(/from 1 to 32768, not 0/));
  expect(() => env.setParallelism(1.5)).toThrow(invalid(/not 1.5/));
  expect(() => env.setMaxParallelism(40_000)).toThrow(invalid(/not 40000/));
  expect(() => stream.map(String).setParallelism(-1)).toThrow(invalid(/not -1/));
  expect(() => stream.map(String).setMaxParallelism(4).setParallelism(5)).toThrow(invalid(/5 is over .* 4/));
  expect(() => stream.map(String).setParallelism(5).setMaxParallelism(4)).toThrow(invalid(/5 is over .* 4/));
  expect(() => untyped.map('upper')).toThrow(invalid(/map\(\) needs a function, not "upper"/));
  expect(() => stream.map(async (s) => s)).toThrow(invalid(/not an async one/));
  expect(() => untyped.keyBy(undefined)).toThrow(invalid(/keyBy\(\) needs a function/));
  expect(() => untyped.sinkTo({})).toThrow(invalid(/no method createWriter/));
  expect(() => env.fromSource({} as never)).toThrow(invalid(/no method enumerateSplits/));
  expect(() => env.fromCollection(5 as never)).toThrow(invalid(/needs an iterable, not 5/));
  expect(() => env.readTextFile('')).toThrow(invalid(/path of a text file/));
  expect(() => stream.map(String).name('')).toThrow(invalid(/operator name/));
  expect(() => env.enableCheckpointing(0)).toThrow(invalid(/over 0, not 0/));
  expect(() => env.enableCheckpointing(10, 'SOMETIMES' as never)).toThrow(invalid(/EXACTLY_ONCE, AT_LEAST_ONCE/));
  expect(() => env.setBufferTimeout(-2)).toThrow(invalid(/buffer timeout/));
  expect(() => env.setRestartStrategy(RestartStrategies.fixedDelayRestart(-1, 0))).toThrow(invalid(/attempts/));
  stream.map(String).uid('same');
  expect(() => stream.map(String).uid('same')).toThrow(invalid(/already that of the operator "Map"/));
  const other = planned().env.fromElements('b');
  expect(() => stream.union(other)).toThrow(invalid(/same environment/));
  env.setMaxParallelism(4);
  expect(() => env.setParallelism(5)).toThrow(invalid(/5 is over .* 4/));
});

test('a forward() between unequal parallelism is refused when the graph is built', () => {
  const { env } = planned();
  env.fromElements(1).forward().map(String).setParallelism(2).print();
  expect(() => env.getStreamGraph()).toThrow(/forward\(\) needs equal parallelism/);
});

test('a program without a sink has nothing to run; one without elements does', async () => {
  const { env, captured } = planned();
  env.fromElements(1).map(String);
  await expect(env.execute()).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/no sink/),
  });
  env.fromElements().print();
  void env.execute('empty');
  await expect.poll(() => captured.map((graph) => graph.name)).toEqual(['empty']);
});

test('settings are the defaults with the author’s changes, and checkpoints make restarts worth while', () => {
  const { env } = planned();
  expect(env.getConfig().restartStrategy.type).toBe('none');
  env.enableCheckpointing(500, 'AT_LEAST_ONCE').setBufferTimeout(5).setGlobalJobParameters({ team: 'a' });
  env.getCheckpointConfig().setMinPauseBetweenCheckpoints(10).setTolerableCheckpointFailureNumber(3);
  expect(env.getConfig()).toMatchObject({
    checkpointing: { intervalMs: 500, mode: 'AT_LEAST_ONCE', minPauseMs: 10, tolerableFailedCheckpoints: 3 },
    restartStrategy: { type: 'exponential-delay', initialBackoffMs: 1_000 },
    bufferTimeoutMs: 5,
    userConfig: { team: 'a' },
  });
  env.setRestartStrategy(RestartStrategies.fixedDelayRestart(3, 100));
  expect(env.getConfig().restartStrategy).toEqual({ type: 'fixed-delay', attempts: 3, delayMs: 100 });
});

test('when planned, execute hands over the graph and never returns', async () => {
  const { env, captured, made } = planned();
  env.fromElements(1).print();
  let returned = false;
  void env.execute('job').then(() => {
    returned = true;
  });
  await expect.poll(() => captured).toHaveLength(1);
  await new Promise((resolve) => setImmediate(resolve));
  expect(returned).toBe(false);
  expect(made).toEqual([env]);
});

test('a plain script may execute several jobs, each holding only what was built for it', async () => {
  leave();
  const ran: Graph[] = [];
  installLocalExecutor({
    defaults: { parallelism: 2, config: DEFAULT_JOB_CONFIG },
    submit: async (graph) => {
      ran.push(graph);
      const jobId = asJobId('0'.repeat(32));
      return {
        jobId,
        getJobExecutionResult: async () => ({ jobId, jobName: graph.name, netRuntimeMs: 1 }),
        cancel: async () => {},
      };
    },
  });
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const shared = env
    .fromElements(1, 2)
    .map((n) => n)
    .uid('shared');
  shared.sinkTo(discardingSink('one')).uid('sink');
  expect(await env.execute('first')).toEqual({ jobId: '0'.repeat(32), jobName: 'first', netRuntimeMs: 1 });
  shared
    .filter((n) => n > 1)
    .sinkTo(discardingSink('two'))
    .uid('sink');
  const client = await env.executeAsync('second');
  expect((await client.getJobExecutionResult()).jobName).toBe('second');
  expect(ran.map(shape)).toEqual([
    ['Source: Collection Source x1', 'Map x2', 'Sink: one x2'],
    ['Source: Collection Source x1', 'Map x2', 'Filter x2', 'Sink: two x2'],
  ]);
  expect(ran[1]?.nodes.map((node) => node.nodeId)).toEqual([1, 2, 3, 4]);
  await expect(env.execute()).rejects.toMatchObject({ message: expect.stringMatching(/no sink/) });
});

test('a job says where its state is kept; what it leaves out stays as the cluster is configured', () => {
  const state = { backend: 'hashmap', incremental: true, compression: 'lz4', localRecovery: true } as const;
  const defaults = { parallelism: 1, config: { ...DEFAULT_JOB_CONFIG, state } };
  const leave = enterPlanContext({ kind: 'plan', defaults, created() {}, captured() {} });
  try {
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    expect(env.getConfig().state).toEqual(state);
    env.setStateBackend('lmdb', { incremental: false, compression: undefined as never });
    expect(env.getConfig().state).toEqual({ ...state, backend: 'lmdb', incremental: false });
    expect(() => env.setStateBackend('rocksdb' as never)).toThrow('no state backend is like that: backend');
  } finally {
    leave();
  }
  const alone = StreamExecutionEnvironment.getExecutionEnvironment();
  expect(alone.getConfig().state).toBeUndefined();
  alone.setStateBackend('lmdb');
  expect(alone.getConfig().state).toMatchObject({ backend: 'lmdb', incremental: false, compression: 'none' });
});
