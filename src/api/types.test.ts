import { beforeEach, expect, expectTypeOf, test } from 'vitest';
import { installConnectors } from './builtin-connectors.ts';
import type { DataStream, KeyedStream, SingleOutputStreamOperator } from './data-stream.ts';
import type { BroadcastState, CheckpointedFunction, FunctionInitializationContext } from './checkpointed-function.ts';
import { StreamExecutionEnvironment } from './environment.ts';
import { enterPlanContext } from './execution-context.ts';
import { DEFAULT_JOB_CONFIG } from './job-settings.ts';
import { KeyedProcessFunction, type KeyedContext, type KeyedRuntimeContext } from './process-function.ts';
import {
  type AggregatingState,
  AggregatingStateDescriptor,
  type ListState,
  ListStateDescriptor,
  type MapState,
  MapStateDescriptor,
  type ReducingState,
  ReducingStateDescriptor,
  type ValueState,
  ValueStateDescriptor,
} from './state.ts';
import { discardingSink, emptySource, memoryConnectors } from './testing/memory-connectors.ts';

/** What the compiler must accept and refuse. Checked by `tsc`; running it proves that it also builds. */

beforeEach(() => {
  installConnectors(memoryConnectors);
  const context = { kind: 'plan', defaults: { parallelism: 1, config: DEFAULT_JOB_CONFIG } } as const;
  return enterPlanContext({ ...context, created() {}, captured() {} });
});

interface Order {
  readonly user: string;
  readonly amount: number;
  readonly cents: bigint;
  readonly note?: number;
}

type RecordOf<S> = S extends DataStream<infer T> ? T : never;

test('types flow from source to sink', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const lines = env.fromElements('Hello World', 'Hello Flink');
  expectTypeOf(lines).toEqualTypeOf<SingleOutputStreamOperator<string>>();
  const words = lines.flatMap((line) => line.split(' ').map((word) => [word, 1] as const));
  expectTypeOf<RecordOf<typeof words>>().toEqualTypeOf<readonly [string, 1]>();
  const keyed = words.keyBy(([word]) => word);
  expectTypeOf(keyed).toEqualTypeOf<KeyedStream<readonly [string, 1], string>>();
  const counts = keyed.sum(1);
  expectTypeOf<RecordOf<typeof counts>>().toEqualTypeOf<readonly [string, number]>();
  counts.sinkTo(discardingSink<readonly [string, number]>('out'));
  // @ts-expect-error a sink of numbers does not take pairs
  counts.sinkTo(discardingSink<number>('out'));
  expectTypeOf(env.readTextFile('a')).toEqualTypeOf<SingleOutputStreamOperator<string>>();
  expectTypeOf(env.fromSource(emptySource<Order>('orders'))).toEqualTypeOf<SingleOutputStreamOperator<Order>>();
  expectTypeOf(env.fromCollection(new Set([1]))).toEqualTypeOf<SingleOutputStreamOperator<number>>();
});

test('a type guard narrows the stream', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const mixed = env.fromElements<string | number>('a', 1);
  const text = mixed.filter((value) => typeof value === 'string');
  expectTypeOf<RecordOf<typeof text>>().toEqualTypeOf<string>();
  expectTypeOf<RecordOf<ReturnType<typeof mixed.rebalance>>>().toEqualTypeOf<string | number>();
});

test('only numeric fields can be summed', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const pairs = env.fromElements<[string, number]>(['a', 1]).keyBy(([word]) => word);
  expectTypeOf<RecordOf<ReturnType<typeof pairs.sum<1>>>>().toEqualTypeOf<[string, number]>();
  // @ts-expect-error position 0 is a text
  pairs.sum(0);
  // @ts-expect-error there is no position 2
  pairs.max(2);
  const orders = env.fromSource(emptySource<Order>('orders')).keyBy((order) => order.user);
  expectTypeOf<RecordOf<ReturnType<typeof orders.sum<'amount'>>>>().toEqualTypeOf<Order>();
  orders.sum('cents');
  orders.minBy('amount');
  // @ts-expect-error a text
  orders.sum('user');
  // @ts-expect-error may be absent
  orders.min('note');
  // @ts-expect-error no such field
  orders.max('price');
  const many = env.fromElements<readonly number[]>([1, 2]).keyBy((numbers) => numbers.length);
  many.sum(7);
});

test('keys are values that can be compared', () => {
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const orders = env.fromSource(emptySource<Order>('orders'));
  orders.keyBy((order) => [order.user, order.amount]);
  orders.keyBy((order) => ({ user: order.user, big: order.amount > 10 }));
  // @ts-expect-error a date is no key
  orders.keyBy(() => new Date());
  // @ts-expect-error neither is nothing
  orders.keyBy((order) => order.note);
  expectTypeOf(orders.keyBy((order) => order.user).reduce((a, b) => (a.amount > b.amount ? a : b))).toEqualTypeOf<
    SingleOutputStreamOperator<Order>
  >();
});

test('a state has the type of its descriptor, from open() to the record', () => {
  class Typed extends KeyedProcessFunction<string, Order, string> implements CheckpointedFunction {
    private rules: BroadcastState<string, number> | undefined;

    initializeState(context: FunctionInitializationContext): void {
      const store = context.getOperatorStateStore();
      this.rules = store.getBroadcastState(new MapStateDescriptor<string, number>('rules'));
      expectTypeOf(store.getUnionListState(new ListStateDescriptor<Date>('dates')).get()).toEqualTypeOf<
        readonly Date[]
      >();
      // @ts-expect-error a list state is not described by a map's descriptor
      store.getListState(new MapStateDescriptor<string, number>('m'));
    }

    snapshotState(): void {
      this.rules?.put('a', 1);
    }

    override open(context: KeyedRuntimeContext): void {
      const ttl = { ttlMs: 1_000, updateType: 'onReadAndWrite', visibility: 'neverReturnExpired' } as const;
      expectTypeOf(context.getState(new ValueStateDescriptor<Order>('v', { ttl }))).toEqualTypeOf<ValueState<Order>>();
      expectTypeOf(context.getState({ name: 'w', defaultValue: 1 })).toEqualTypeOf<ValueState<number>>();
      expectTypeOf(context.getListState(new ListStateDescriptor<bigint>('l'))).toEqualTypeOf<ListState<bigint>>();
      const map = context.getMapState(new MapStateDescriptor<readonly [string, number], Order>('m'));
      expectTypeOf(map).toEqualTypeOf<MapState<readonly [string, number], Order>>();
      const reducing = new ReducingStateDescriptor('r', (a: number, b: number) => a + b, { ttl });
      expectTypeOf(context.getReducingState(reducing)).toEqualTypeOf<ReducingState<number>>();
      const mean = new AggregatingStateDescriptor('a', {
        createAccumulator: () => ({ sum: 0, count: 0 }),
        add: (value: number, { sum, count }) => ({ sum: sum + value, count: count + 1 }),
        getResult: ({ sum, count }) => `${sum / count}`,
      });
      expectTypeOf(context.getAggregatingState(mean)).toEqualTypeOf<AggregatingState<number, string>>();
      // @ts-expect-error no date is a key
      new MapStateDescriptor<Date, number>('d');
      // @ts-expect-error there is no such update type
      new ValueStateDescriptor<number>('x', { ttl: { ttlMs: 1, updateType: 'never' } });
      // @ts-expect-error a list's descriptor names no value state of its items
      const wrong: ValueState<number> = context.getListState(new ListStateDescriptor<number>('l2'));
      expectTypeOf(wrong).toEqualTypeOf<ValueState<number>>();
    }

    processElement(value: Order, ctx: KeyedContext<string>): void {
      ctx.getListState(new ListStateDescriptor<number>('amounts')).add(value.amount);
      // @ts-expect-error an amount is no text
      ctx.getListState(new ListStateDescriptor<string>('amounts')).add(value.amount);
    }
  }
  const env = StreamExecutionEnvironment.getExecutionEnvironment();
  const keyed = env.fromSource(emptySource<Order>('orders')).keyBy((order) => order.user);
  expectTypeOf(keyed.process(() => new Typed())).toEqualTypeOf<SingleOutputStreamOperator<string>>();
  expect(() => keyed.process(new Typed())).toThrow('needs a function that makes the process function');
});
