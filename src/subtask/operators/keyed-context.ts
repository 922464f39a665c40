import type { Key, RuntimeContext } from '../../api/functions.ts';
import type { OnTimerContext, OutputTag, TimeDomain, TimerService } from '../../api/process-function.ts';
import type {
  AggregatingState,
  AggregatingStateDescriptor,
  KeyedStateStore,
  ListState,
  ListStateDescriptor,
  MapState,
  MapStateDescriptor,
  ReducingState,
  ReducingStateDescriptor,
  ValueState,
  ValueStateName,
} from '../../api/state.ts';
import { assert } from '../../kernel/assert.ts';

/** What the context passes on to its operator. */
export interface KeyedContextHost {
  register(domain: TimeDomain, timeMs: number): void;
  delete(domain: TimeDomain, timeMs: number): void;
  currentProcessingTime(): number;
  currentWatermark(): number;
  emitSide(tag: string, value: unknown): void;
}

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
  private readonly timers: TimerService;

  constructor(
    runtime: RuntimeContext,
    private readonly states: KeyedStateStore,
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

  getState<T>(descriptor: ValueStateName<T>): ValueState<T> {
    return this.states.getState(descriptor);
  }

  getListState<T>(descriptor: ListStateDescriptor<T>): ListState<T> {
    return this.states.getListState(descriptor);
  }

  getMapState<K extends Key, V>(descriptor: MapStateDescriptor<K, V>): MapState<K, V> {
    return this.states.getMapState(descriptor);
  }

  getReducingState<T>(descriptor: ReducingStateDescriptor<T>): ReducingState<T> {
    return this.states.getReducingState(descriptor);
  }

  getAggregatingState<IN, ACC, OUT>(descriptor: AggregatingStateDescriptor<IN, ACC, OUT>): AggregatingState<IN, OUT> {
    return this.states.getAggregatingState(descriptor);
  }

  output<X>(tag: OutputTag<X>, value: X): void {
    this.host.emitSide(tag.id, value);
  }
}
