import type { Partitioner } from '../contracts/job-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { type Aggregation, aggregate, type FieldRef } from './aggregations.ts';
import { checkFunction, checkMethods } from './arguments.ts';
import { builtinConnectors } from './builtin-connectors.ts';
import { ConnectedStreams } from './connected-streams.ts';
import type { NumericField, WithSum } from './field-types.ts';
import type { FilterFunction, FlatMapFunction, Key, KeySelector, MapFunction, ReduceFunction } from './functions.ts';
import type { OperatorDefinition } from './operator-definition.ts';
import { checkProcessFunction, type KeyedProcessFunction, OutputTag } from './process-function.ts';
import type { Sink, TwoPhaseCommitSink } from './sink.ts';
import { type OperatorRegistry, type StreamInput, StreamOperator } from './stream-operator.ts';
import { checkStrategy, type WatermarkStrategy } from './watermark-strategy.ts';
import { WindowedStream } from './windowed-stream.ts';
import type { TumblingEventTimeWindows } from './windows.ts';

/** The environment as its streams see it. */
export interface StreamHost extends OperatorRegistry {
  /** Parallelism of operators that set none. */
  readonly parallelism: number;
  /** Makes an operator part of the next job. */
  addOperator(operator: StreamOperator): void;
}

/**
 * A stream of records of one type, as written in a program: nothing flows before `execute`.
 *
 * Transformations return new streams and never change this one, so a stream may be used several times.
 */
export class DataStream<T> {
  constructor(
    protected readonly host: StreamHost,
    /** What a transformation of this stream reads. */
    protected readonly inputs: readonly StreamInput[],
  ) {}

  /** One record for each record. */
  map<R>(fn: MapFunction<T, R>): SingleOutputStreamOperator<R> {
    checkFunction('map()', fn);
    return this.transform<R>('Map', { kind: 'map', fn: fn as MapFunction<unknown, unknown> });
  }

  /** Any number of records for each record: every element of the iterable that `fn` returns. */
  flatMap<R>(fn: FlatMapFunction<T, R>): SingleOutputStreamOperator<R> {
    checkFunction('flatMap()', fn);
    return this.transform<R>('Flat Map', { kind: 'flatMap', fn: fn as FlatMapFunction<unknown, unknown> });
  }

  /** Only the records for which `fn` is true; a type guard narrows the stream. */
  filter<R extends T>(fn: (value: T) => value is R): SingleOutputStreamOperator<R>;
  filter(fn: FilterFunction<T>): SingleOutputStreamOperator<T>;
  filter(fn: FilterFunction<T>): SingleOutputStreamOperator<T> {
    checkFunction('filter()', fn);
    return this.transform<T>('Filter', { kind: 'filter', fn: fn as FilterFunction<unknown> });
  }

  /**
   * Sends all records of one key to one subtask. Keys are compared by value; see {@link Key}. `selector`
   * must give the same key for the same record always.
   */
  keyBy<const K extends Key>(selector: KeySelector<T, K>): KeyedStream<T, K> {
    checkFunction('keyBy()', selector);
    return new KeyedStream(this.host, this.inputs, selector);
  }

  /** This stream and others of its type, in one. Nothing is said about the order between them. */
  union(...others: readonly DataStream<T>[]): DataStream<T> {
    for (const other of others) {
      if (!(other instanceof DataStream) || other.host !== this.host) {
        throw new InvalidArgumentError('union() needs streams of the same environment');
      }
    }
    return new DataStream<T>(this.host, [...this.inputs, ...others.flatMap((other) => other.inputs)]);
  }

  /** This stream and one of any type, to be handled by one operator. */
  connect<B>(other: DataStream<B>): ConnectedStreams<T, B> {
    if (!(other instanceof DataStream) || other.host !== this.host) {
      throw new InvalidArgumentError('connect() needs a stream of the same environment');
    }
    return new ConnectedStreams<T, B>(this, other);
  }

  /** Reads event time from the records: timestamps, and watermarks made in this operator. */
  assignTimestampsAndWatermarks(strategy: WatermarkStrategy<T>): SingleOutputStreamOperator<T> {
    checkStrategy('assignTimestampsAndWatermarks()', strategy);
    const watermarks = strategy as WatermarkStrategy<unknown>;
    return this.transform<T>('Timestamps/Watermarks', { kind: 'timestamps', watermarks });
  }

  /** What an operator that reads this stream is built from. */
  readings(): { readonly host: StreamHost; readonly inputs: readonly StreamInput[] } {
    return { host: this.host, inputs: this.inputs };
  }

  /** Record n goes to subtask n modulo the parallelism: even load. */
  rebalance(): DataStream<T> {
    return this.partitioned('REBALANCE');
  }

  /** Like `rebalance`, but only to subtasks nearby: fewer channels, even only if the input is. */
  rescale(): DataStream<T> {
    return this.partitioned('RESCALE');
  }

  /** Every record to every subtask. */
  broadcast(): DataStream<T> {
    return this.partitioned('BROADCAST');
  }

  /** Every record to a subtask chosen at random. */
  shuffle(): DataStream<T> {
    return this.partitioned('SHUFFLE');
  }

  /** Every record to the first subtask. */
  global(): DataStream<T> {
    return this.partitioned('GLOBAL');
  }

  /** Record by record to the subtask of the same index: both sides need the same parallelism. */
  forward(): DataStream<T> {
    return this.partitioned('FORWARD');
  }

  /** Where the stream ends. Every job needs at least one sink. */
  sinkTo<C>(sink: Sink<T> | TwoPhaseCommitSink<T, C>): DataStreamSink {
    checkMethods('the sink', sink, ['createWriter']);
    const operator = this.operator(sink.name, { kind: 'sink', sink: sink as Sink<unknown> });
    return new DataStreamSink(operator);
  }

  /** Writes every record to the standard output of its worker, after `prefix>` when given. */
  print(prefix?: string): DataStreamSink {
    return this.sinkTo(builtinConnectors().print<T>(prefix));
  }

  protected transform<R>(name: string, definition: OperatorDefinition): SingleOutputStreamOperator<R> {
    return new SingleOutputStreamOperator<R>(this.host, this.operator(name, definition));
  }

  private operator(name: string, definition: OperatorDefinition): StreamOperator {
    const operator = new StreamOperator(this.host, definition, this.inputs, {
      name,
      parallelism: this.host.parallelism,
    });
    this.host.addOperator(operator);
    return operator;
  }

  private partitioned(partitioner: Partitioner): DataStream<T> {
    const inputs = this.inputs.map((input) => ({ ...input, partitioner, keySelector: undefined }));
    return new DataStream<T>(this.host, inputs);
  }
}

/** The output of one operator; its methods below set that operator up and return the same stream. */
export class SingleOutputStreamOperator<T> extends DataStream<T> {
  constructor(
    host: StreamHost,
    private readonly made: StreamOperator,
  ) {
    super(host, [{ operator: made, partitioner: undefined, keySelector: undefined }]);
  }

  /** What the operator's function has emitted with `ctx.output(tag, value)`. */
  getSideOutput<X>(tag: OutputTag<X>): DataStream<X> {
    if (!(tag instanceof OutputTag)) throw new InvalidArgumentError('getSideOutput() needs an OutputTag');
    const { kind } = this.made.definition;
    if (kind !== 'process' && kind !== 'coProcess' && kind !== 'window') {
      throw new InvalidArgumentError(
        `"${this.made.settings.name}" has no side outputs: it is no process function and no window`,
      );
    }
    const input = { operator: this.made, partitioner: undefined, keySelector: undefined, sideOutput: tag.id };
    return new DataStream<X>(this.host, [input]);
  }

  /** What people see in plans, logs and metrics. */
  name(name: string): this {
    this.made.name(name);
    return this;
  }

  /** Finds the operator's state again when the program around it has changed. Unique in the program. */
  uid(uid: string): this {
    this.made.uid(uid);
    return this;
  }

  setParallelism(parallelism: number): this {
    this.made.setParallelism(parallelism);
    return this;
  }

  /** How far the operator can ever be scaled: its number of key groups. Fixed once it has state. */
  setMaxParallelism(maxParallelism: number): this {
    this.made.setMaxParallelism(maxParallelism);
    return this;
  }

  /** The operator neither joins its input's task nor lets the next one join. */
  disableChaining(): this {
    this.made.chaining('never');
    return this;
  }

  /** The operator begins a task of its own; the next ones may join it. */
  startNewChain(): this {
    this.made.chaining('head');
    return this;
  }

  /** Operators of different groups never share a slot. Later operators inherit the group. */
  slotSharingGroup(group: string): this {
    this.made.slotSharingGroup(group);
    return this;
  }
}

/** A stream whose records are grouped by key. */
export class KeyedStream<T, K extends Key> extends DataStream<T> {
  readonly keySelector: KeySelector<T, K>;

  constructor(host: StreamHost, inputs: readonly StreamInput[], keySelector: KeySelector<T, K>) {
    const hashed = inputs.map((input) => ({
      ...input,
      partitioner: 'HASH' as const,
      keySelector: keySelector as KeySelector<unknown>,
    }));
    super(host, hashed);
    this.keySelector = keySelector;
  }

  /** Combines the records of each key one by one and emits the new value for every record. */
  reduce(fn: ReduceFunction<T>): SingleOutputStreamOperator<T> {
    checkFunction('reduce()', fn);
    return this.rolling<T>('Keyed Reduce', fn as ReduceFunction<unknown>);
  }

  /** Full control over the records, state and time of each key. */
  process<O>(fn: KeyedProcessFunction<K, T, O> | (() => KeyedProcessFunction<K, T, O>)): SingleOutputStreamOperator<O> {
    const create = checkProcessFunction('process()', fn, ['processElement']);
    return this.transform<O>('KeyedProcess', {
      kind: 'process',
      keySelector: this.keySelector as KeySelector<unknown>,
      create: create as () => KeyedProcessFunction<unknown, unknown, unknown>,
    });
  }

  /** Cuts the stream of each key into windows, by the time of its records. */
  window(windows: TumblingEventTimeWindows): WindowedStream<T, K> {
    return new WindowedStream<T, K>((name, definition) => this.transform(name, definition), this.keySelector, windows);
  }

  /** Running sum of a field; the other fields are those of the key's first record. */
  sum<const F extends NumericField<T>>(field: F): SingleOutputStreamOperator<WithSum<T, F>> {
    return this.aggregated<WithSum<T, F>>('sum', field as FieldRef);
  }

  /** Least value of a field so far; the other fields are those of the key's first record. */
  min(field: NumericField<T>): SingleOutputStreamOperator<T> {
    return this.aggregated<T>('min', field as FieldRef);
  }

  /** Greatest value of a field so far; the other fields are those of the key's first record. */
  max(field: NumericField<T>): SingleOutputStreamOperator<T> {
    return this.aggregated<T>('max', field as FieldRef);
  }

  /** The first record that has the least value of a field so far. */
  minBy(field: NumericField<T>): SingleOutputStreamOperator<T> {
    return this.aggregated<T>('minBy', field as FieldRef);
  }

  /** The first record that has the greatest value of a field so far. */
  maxBy(field: NumericField<T>): SingleOutputStreamOperator<T> {
    return this.aggregated<T>('maxBy', field as FieldRef);
  }

  private aggregated<R>(aggregation: Aggregation, field: FieldRef): SingleOutputStreamOperator<R> {
    return this.rolling<R>(
      'Keyed Aggregation',
      aggregate(aggregation, field),
      aggregation === 'sum' ? field : undefined,
    );
  }

  private rolling<R>(name: string, fn: ReduceFunction<unknown>, sumOf?: FieldRef): SingleOutputStreamOperator<R> {
    return this.transform<R>(name, {
      kind: 'reduce',
      keySelector: this.keySelector as KeySelector<unknown>,
      fn,
      ...(sumOf === undefined ? {} : { sumOf }),
    });
  }
}

/** The end of a stream; its methods set the sink's operator up. */
export class DataStreamSink {
  constructor(private readonly made: StreamOperator) {}

  name(name: string): this {
    this.made.name(name);
    return this;
  }

  /** Finds the sink's pending commits again when the program around it has changed. */
  uid(uid: string): this {
    this.made.uid(uid);
    return this;
  }

  setParallelism(parallelism: number): this {
    this.made.setParallelism(parallelism);
    return this;
  }

  setMaxParallelism(maxParallelism: number): this {
    this.made.setMaxParallelism(maxParallelism);
    return this;
  }

  disableChaining(): this {
    this.made.chaining('never');
    return this;
  }

  slotSharingGroup(group: string): this {
    this.made.slotSharingGroup(group);
    return this;
  }
}
