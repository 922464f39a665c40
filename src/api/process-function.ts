import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkText, show } from './arguments.ts';
import { isCheckpointed } from './checkpointed-function.ts';
import type { Collector, RuntimeContext } from './functions.ts';
import type { KeyedStateStore } from './state.ts';

export interface TimerService {
  /** Milliseconds since the epoch, by the clock of the worker. */
  currentProcessingTime(): number;
  /** The event time reached: `-Infinity` before the first watermark, `Infinity` at the end of the data. */
  currentWatermark(): number;
  /**
   * Calls `onTimer` for the current key once the watermark reaches `timeMs`, a whole number of milliseconds.
   * A key has at most one timer of each kind for each time; registering it again changes nothing.
   */
  registerEventTimeTimer(timeMs: number): void;
  deleteEventTimeTimer(timeMs: number): void;
  /** The same by the clock of the worker. Those still waiting when the data ends never fire. */
  registerProcessingTimeTimer(timeMs: number): void;
  deleteProcessingTimeTimer(timeMs: number): void;
}

/**
 * What a keyed function gets when it opens: facts, and the states of its keys. A state got here may be kept;
 * it always means the key of the record that is being handled. Part of every checkpoint.
 */
export interface KeyedRuntimeContext extends RuntimeContext, KeyedStateStore {}

/** What a process function may use while it handles a record or a timer; not to be kept for later. */
export interface KeyedContext<K> extends KeyedRuntimeContext {
  getCurrentKey(): K;
  /** The time of the record or of the event-time timer; undefined when it has none. */
  timestamp(): number | undefined;
  timerService(): TimerService;
  /** Emits to a side output, read with `getSideOutput(tag)`. */
  output<X>(tag: OutputTag<X>, value: X): void;
}

export interface OnTimerContext<K> extends KeyedContext<K> {
  timeDomain(): TimeDomain;
}

export type TimeDomain = 'EVENT_TIME' | 'PROCESSING_TIME';

/**
 * Full control over one key's records, state and time. Methods are synchronous.
 *
 * One object serves all subtasks of a process, so it keeps nothing in fields: what belongs to a key goes
 * into keyed state (`ctx.getState` and its like). For fields of a subtask's own, and so for a
 * `CheckpointedFunction`, pass a function that makes the object.
 */
export abstract class KeyedProcessFunction<K, I, O> {
  /** Before the first record. */
  open?(context: KeyedRuntimeContext): void;
  abstract processElement(value: I, ctx: KeyedContext<K>, out: Collector<O>): void;
  onTimer?(timestampMs: number, ctx: OnTimerContext<K>, out: Collector<O>): void;
  close?(): void;
}

/** Two streams of one key that share state and timers. */
export abstract class KeyedCoProcessFunction<K, A, B, O> {
  open?(context: KeyedRuntimeContext): void;
  abstract processElement1(value: A, ctx: KeyedContext<K>, out: Collector<O>): void;
  abstract processElement2(value: B, ctx: KeyedContext<K>, out: Collector<O>): void;
  onTimer?(timestampMs: number, ctx: OnTimerContext<K>, out: Collector<O>): void;
  close?(): void;
}

/** Names a side output and the type of its records. */
export class OutputTag<T> {
  /** Only for the compiler: the type of the records. */
  declare readonly recordType: T;

  constructor(readonly id: string) {
    checkText('the id of an output tag', id, 200);
  }
}

/** An object with the given methods, or a function that makes one. */
export function checkProcessFunction<F extends object>(
  what: string,
  given: F | (() => F),
  methods: readonly (keyof F & string)[],
): () => F {
  const make = typeof given === 'function' ? given : undefined;
  const check = (made: F): F => {
    if (typeof made !== 'object' || made === null) {
      throw new InvalidArgumentError(`${what} needs a process function, not ${show(made)}`);
    }
    for (const method of methods) {
      if (typeof made[method] !== 'function') {
        throw new InvalidArgumentError(`the function of ${what} has no method ${method}()`);
      }
    }
    return made;
  };
  if (make !== undefined) return () => check(make());
  check(given as F);
  if (isCheckpointed(given)) {
    throw new InvalidArgumentError(
      `${what} needs a function that makes the process function, as it has operator state`,
      {
        hint: `Each subtask has its own: write ${what.replace('()', '')}(() => new ${given.constructor.name}()).`,
      },
    );
  }
  return () => given as F;
}
