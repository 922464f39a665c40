import { afterEach, beforeEach, expect, expectTypeOf, test } from 'vitest';
import { installConnectors } from './builtin-connectors.ts';
import type { SingleOutputStreamOperator } from './data-stream.ts';
import { StreamExecutionEnvironment } from './environment.ts';
import { enterPlanContext } from './execution-context.ts';
import { DEFAULT_JOB_CONFIG } from './job-settings.ts';
import { KeyedCoProcessFunction, type KeyedContext, KeyedProcessFunction, OutputTag } from './process-function.ts';
import { discardingSink, memoryConnectors } from './testing/memory-connectors.ts';
import { WatermarkStrategy } from './watermark-strategy.ts';

let leave: () => void;

beforeEach(() => {
  installConnectors(memoryConnectors);
  const context = { kind: 'plan', defaults: { parallelism: 2, config: DEFAULT_JOB_CONFIG } } as const;
  leave = enterPlanContext({ ...context, created() {}, captured() {} });
});

afterEach(() => leave());

interface Reading {
  readonly sensor: string;
  readonly timeMs: number;
}

class Echo extends KeyedProcessFunction<string, Reading, number> {
  processElement(value: Reading, ctx: KeyedContext<string>): void {
    expectTypeOf(ctx.getCurrentKey()).toEqualTypeOf<string>();
    expectTypeOf(value.timeMs).toEqualTypeOf<number>();
  }
}

class Both extends KeyedCoProcessFunction<string, Reading, number, boolean> {
  processElement1(): void {}
  processElement2(): void {}
}

const readings = (env: StreamExecutionEnvironment) =>
  env.fromElements<Reading>({ sensor: 'a', timeMs: 1 }, { sensor: 'b', timeMs: 2 });

test('types flow through event time, process functions, side outputs and connected streams', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const strategy = WatermarkStrategy.forMonotonousTimestamps<Reading>().withTimestampAssigner(({ timeMs }) => timeMs);
  const keyed = readings(env)
    .assignTimestampsAndWatermarks(strategy)
    .keyBy(({ sensor }) => sensor);
  const echoed = keyed.process(new Echo());
  expectTypeOf(echoed).toEqualTypeOf<SingleOutputStreamOperator<number>>();
  const late = echoed.getSideOutput(new OutputTag<Reading>('late'));
  expectTypeOf(late.map(({ sensor }) => sensor)).toEqualTypeOf<SingleOutputStreamOperator<string>>();
  const met = keyed.connect(echoed.keyBy((n) => `${n}`)).process(new Both());
  expectTypeOf(met).toEqualTypeOf<SingleOutputStreamOperator<boolean>>();
  const byTime = readings(env).keyBy(({ timeMs }) => timeMs);
  // @ts-expect-error the function is for two inputs
  expect(() => byTime.process(new Both())).toThrow('processElement');
});

test('both inputs of a connected operator, and its side output, are edges of their own', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const first = readings(env).keyBy(({ sensor }) => sensor);
  const second = env.fromElements(1, 2).keyBy((n) => `${n}`);
  const met = first.connect(second).process(new Both());
  met.sinkTo(discardingSink('nowhere'));
  met.getSideOutput(new OutputTag<number>('odd')).sinkTo(discardingSink('nowhere'));
  const { nodes, edges } = env.getStreamGraph();
  const met1 = nodes.find(({ kind }) => kind === 'coProcess')?.nodeId;
  expect(edges.filter(({ targetNode }) => targetNode === met1).map((e) => [e.inputIndex, e.partitioner])).toEqual([
    [0, 'HASH'],
    [1, 'HASH'],
  ]);
  expect(edges.filter(({ sourceNode }) => sourceNode === met1).map((e) => e.sideOutput)).toEqual([undefined, 'odd']);
});

test('what makes no sense is refused where it is written', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const stream = readings(env);
  expect(() => WatermarkStrategy.forBoundedOutOfOrderness(-1)).toThrow('0 or more');
  expect(() => WatermarkStrategy.forMonotonousTimestamps().withIdleness(0)).toThrow('over 0');
  expect(() => stream.assignTimestampsAndWatermarks({} as WatermarkStrategy<Reading>)).toThrow('WatermarkStrategy');
  expect(() => stream.getSideOutput(new OutputTag('x'))).toThrow('no side outputs');
  expect(() => new OutputTag('')).toThrow('1 to 200');
  expect(() => stream.connect(stream).process(new Both())).toThrow('keyed streams');
  const other = StreamExecutionEnvironment.getExecutionEnvironment();
  expect(() => stream.connect(readings(other))).toThrow('same environment');
  expect(() => env.setAutoWatermarkInterval(-5)).toThrow('0 or more');
  expect(env.setAutoWatermarkInterval(50).getConfig().autoWatermarkIntervalMs).toBe(50);
});
