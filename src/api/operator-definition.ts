import type { FieldRef } from './aggregations.ts';
import type { FilterFunction, FlatMapFunction, KeySelector, MapFunction, ReduceFunction } from './functions.ts';
import type { KeyedCoProcessFunction, KeyedProcessFunction } from './process-function.ts';
import type { Sink, TwoPhaseCommitSink } from './sink.ts';
import type { Source } from './source.ts';
import type { AggregateFunction } from './state.ts';
import type { WatermarkStrategy } from './watermark-strategy.ts';
import type { ProcessWindowFunction, TumblingEventTimeWindows } from './windows.ts';

/**
 * An operator with its functions: what `main` builds and a slot takes by operator id. The JobGraph
 * keeps only `kind`. Records are `unknown` here; the typed face is DataStream's.
 */
export type OperatorDefinition =
  | {
      readonly kind: 'source';
      readonly source: Source<unknown, unknown>;
      /** Event time from the start. */
      readonly watermarks?: WatermarkStrategy<unknown>;
    }
  | { readonly kind: 'map'; readonly fn: MapFunction<unknown, unknown> }
  | { readonly kind: 'flatMap'; readonly fn: FlatMapFunction<unknown, unknown> }
  | { readonly kind: 'filter'; readonly fn: FilterFunction<unknown> }
  /** Keyed rolling aggregation: emits the new value of the key for each record. `sum`, `min`, `max` are made of it. */
  | {
      readonly kind: 'reduce';
      readonly keySelector: KeySelector<unknown>;
      readonly fn: ReduceFunction<unknown>;
      /** Set when `fn` is `sum` of that field: what it does can then be done in place. */
      readonly sumOf?: FieldRef;
    }
  | { readonly kind: 'timestamps'; readonly watermarks: WatermarkStrategy<unknown> }
  /** `create` gives each subtask its function. */
  | {
      readonly kind: 'process';
      readonly keySelector: KeySelector<unknown>;
      readonly create: () => KeyedProcessFunction<unknown, unknown, unknown>;
    }
  | {
      readonly kind: 'coProcess';
      /** By input. */
      readonly keySelectors: readonly [KeySelector<unknown>, KeySelector<unknown>];
      readonly create: () => KeyedCoProcessFunction<unknown, unknown, unknown, unknown>;
    }
  | {
      readonly kind: 'window';
      readonly keySelector: KeySelector<unknown>;
      readonly windows: TumblingEventTimeWindows;
      readonly contents: WindowContents;
      /** The id of the side output that late records go to. */
      readonly lateTag?: string;
    }
  | { readonly kind: 'sink'; readonly sink: Sink<unknown> | TwoPhaseCommitSink<unknown, unknown> };

/** What becomes of the records of a key and window. */
export type WindowContents =
  | { readonly kind: 'reduce'; readonly fn: ReduceFunction<unknown>; readonly sumOf?: FieldRef }
  | { readonly kind: 'aggregate'; readonly fn: AggregateFunction<unknown, unknown, unknown> }
  | { readonly kind: 'process'; readonly create: () => ProcessWindowFunction<unknown, unknown> };

export type OperatorKind = OperatorDefinition['kind'];
