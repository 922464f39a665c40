import type { RuntimeContext } from '../../api/functions.ts';
import type {
  KeyedValue,
  OnTimerContext,
  OutputTag,
  TimeDomain,
  TimerService,
  ValueStateName,
} from '../../api/process-function.ts';
import { assert } from '../../kernel/assert.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { KeyedStateBackend } from '../../state/ports.ts';

/** What the context passes on to its operator. */
export interface KeyedContextHost {
  register(domain: TimeDomain, timeMs: number): void;
  delete(domain: TimeDomain, timeMs: number): void;
  currentProcessingTime(): number;
  currentWatermark(): number;
  emitSide(tag: string, value: unknown): void;
}

/** Names that begin like this are the operator's own. */
const RESERVED_PREFIX = 'millrace.';

/** The one context of an operator; `enter` says for which key, time and cause it is used next. */
export class KeyedContextImpl implements OnTimerContext<unknown> {
  readonly jobId: string;
  readonly jobName: string;
  readonly taskName: string;
  readonly subtaskIndex: number;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly attemptNumber: number;
  key: unknown;
  private timestampMs = Number.NaN;
  private domain: TimeDomain | undefined;
  private readonly states = new Map<string, KeyedValue<unknown>>();
  private readonly timers: TimerService;

  constructor(
    runtime: RuntimeContext,
    private readonly backend: KeyedStateBackend,
    private readonly host: KeyedContextHost,
  ) {
    this.jobId = runtime.jobId;
    this.jobName = runtime.jobName;
    this.taskName = runtime.taskName;
    this.subtaskIndex = runtime.subtaskIndex;
    this.parallelism = runtime.parallelism;
    this.maxParallelism = runtime.maxParallelism;
    this.attemptNumber = runtime.attemptNumber;
    this.timers = {
      currentProcessingTime: () => host.currentProcessingTime(),
      currentWatermark: () => host.currentWatermark(),
      registerEventTimeTimer: (timeMs) => host.register('EVENT_TIME', timeMs),
      deleteEventTimeTimer: (timeMs) => host.delete('EVENT_TIME', timeMs),
      registerProcessingTimeTimer: (timeMs) => host.register('PROCESSING_TIME', timeMs),
      deleteProcessingTimeTimer: (timeMs) => host.delete('PROCESSING_TIME', timeMs),
    };
  }

  enter(key: unknown, timestampMs: number, domain: TimeDomain | undefined): void {
    this.key = key;
    this.timestampMs = timestampMs;
    this.domain = domain;
  }

  getCurrentKey(): unknown {
    return this.key;
  }

  timestamp(): number | undefined {
    return Number.isNaN(this.timestampMs) ? undefined : this.timestampMs;
  }

  timerService(): TimerService {
    return this.timers;
  }

  timeDomain(): TimeDomain {
    assert(this.domain !== undefined, 'timeDomain() is asked while a timer fires');
    return this.domain;
  }

  getState<T>(descriptor: ValueStateName<T>): KeyedValue<T> {
    const { name } = descriptor;
    let state = this.states.get(name);
    if (state === undefined) {
      state = this.createState(descriptor);
      this.states.set(name, state);
    }
    return state as KeyedValue<T>;
  }

  output<X>(tag: OutputTag<X>, value: X): void {
    this.host.emitSide(tag.id, value);
  }

  private createState<T>({ name, defaultValue }: ValueStateName<T>): KeyedValue<unknown> {
    if (typeof name !== 'string' || name === '' || name.startsWith(RESERVED_PREFIX)) {
      throw new InvalidArgumentError(`"${String(name)}" cannot be the name of a state`, {
        hint: `A name is a text that does not begin with "${RESERVED_PREFIX}".`,
      });
    }
    const state = this.backend.valueState<unknown>(name);
    if (defaultValue === undefined) return state;
    return {
      // A copy for each key: one that is changed in place must not change the others'.
      value: () => state.value() ?? structuredClone(defaultValue),
      update: (value) => state.update(value),
      clear: () => state.clear(),
    };
  }
}
