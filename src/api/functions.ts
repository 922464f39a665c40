/** Where an operator puts its results. Synchronous: backpressure is applied between records, not inside one. */
export interface Collector<T> {
  collect(value: T): void;
}

/** Facts about the subtask that runs a function. */
export interface RuntimeContext {
  readonly jobId: string;
  readonly jobName: string;
  readonly taskName: string;
  readonly subtaskIndex: number;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly attemptNumber: number;
}

/** Called once per record; must not be async and must not mutate its input. */
export type MapFunction<T, R> = (value: T) => R;
/** Every element of the returned iterable becomes a record. */
export type FlatMapFunction<T, R> = (value: T) => Iterable<R>;
export type FilterFunction<T> = (value: T) => boolean;
/** Combines two values of one key; associative. Must return a new value or `current`, never a mutated `value`. */
export type ReduceFunction<T> = (current: T, value: T) => T;
/** Keys are strings, numbers, bigints, booleans, or plain arrays and objects of those; compared by value. */
export type KeySelector<T, K extends Key = Key> = (value: T) => K;
export type Key = string | number | bigint | boolean | readonly Key[] | { readonly [field: string]: Key };
