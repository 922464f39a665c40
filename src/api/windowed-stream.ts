import { InvalidArgumentError } from '../kernel/errors.ts';
import { aggregate, type FieldRef } from './aggregations.ts';
import { checkFunction, checkMethods } from './arguments.ts';
import type { NumericField, WithSum } from './field-types.ts';
import type { Key, KeySelector, ReduceFunction } from './functions.ts';
import type { OperatorDefinition, WindowContents } from './operator-definition.ts';
import { checkProcessFunction, OutputTag } from './process-function.ts';
import type { SingleOutputStreamOperator } from './data-stream.ts';
import type { AggregateFunction } from './state.ts';
import { type ProcessWindowFunction, TumblingEventTimeWindows } from './windows.ts';

/** Makes the operator of a windowed stream: `KeyedStream` knows how. */
export type MakeWindowOperator = <O>(name: string, definition: OperatorDefinition) => SingleOutputStreamOperator<O>;

/**
 * A keyed stream cut into windows. Each key has one result a window, emitted when the watermark has passed the
 * window's end, with the last millisecond of the window as its time. Records that come after that are left
 * out, or go to a side output.
 */
export class WindowedStream<T, K extends Key> {
  constructor(
    private readonly make: MakeWindowOperator,
    private readonly keySelector: KeySelector<T, K>,
    private readonly windows: TumblingEventTimeWindows,
    private readonly lateTag: string | undefined = undefined,
  ) {
    if (!(windows instanceof TumblingEventTimeWindows)) {
      throw new InvalidArgumentError('window() needs windows, for example TumblingEventTimeWindows.of(10_000)');
    }
  }

  /** Records that come too late for their window, to be read from the result with `getSideOutput(tag)`. */
  sideOutputLateData(tag: OutputTag<T>): WindowedStream<T, K> {
    if (!(tag instanceof OutputTag)) throw new InvalidArgumentError('sideOutputLateData() needs an OutputTag');
    return new WindowedStream(this.make, this.keySelector, this.windows, tag.id);
  }

  /** Combines the records of each key and window one by one. */
  reduce(fn: ReduceFunction<T>): SingleOutputStreamOperator<T> {
    checkFunction('reduce()', fn);
    return this.operator<T>({ kind: 'reduce', fn: fn as ReduceFunction<unknown> });
  }

  /** Sum of a field; the other fields are those of the window's first record. */
  sum<const F extends NumericField<T>>(field: F): SingleOutputStreamOperator<WithSum<T, F>> {
    const sumOf = field as FieldRef;
    return this.operator<WithSum<T, F>>({ kind: 'reduce', fn: aggregate('sum', sumOf), sumOf });
  }

  /** Gathers the records of each key and window into an accumulator. */
  aggregate<A, O>(fn: AggregateFunction<T, A, O>): SingleOutputStreamOperator<O> {
    checkMethods('the function of aggregate()', fn, ['createAccumulator', 'add', 'getResult']);
    return this.operator<O>({ kind: 'aggregate', fn: fn as AggregateFunction<unknown, unknown, unknown> });
  }

  /** Keeps all records of each key and window for one call. */
  process<O>(
    fn: ProcessWindowFunction<T, O, K> | (() => ProcessWindowFunction<T, O, K>),
  ): SingleOutputStreamOperator<O> {
    const create = checkProcessFunction('process()', fn, ['process']);
    return this.operator<O>({
      kind: 'process',
      create: create as unknown as () => ProcessWindowFunction<unknown, unknown>,
    });
  }

  private operator<O>(contents: WindowContents): SingleOutputStreamOperator<O> {
    return this.make<O>('Window', {
      kind: 'window',
      keySelector: this.keySelector as KeySelector<unknown>,
      windows: this.windows,
      contents,
      ...(this.lateTag === undefined ? {} : { lateTag: this.lateTag }),
    });
  }
}
