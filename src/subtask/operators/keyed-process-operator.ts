import type { Collector } from '../../api/functions.ts';
import type { KeyedRuntimeContext, OnTimerContext, TimeDomain } from '../../api/process-function.ts';
import { present } from '../../kernel/assert.ts';
import type { Timer } from '../../kernel/clock.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { KeyedStateBackend, SnapshotOptions } from '../../state/ports.ts';
import { operatorError, type OperatorSite, userCodeError } from '../operator-error.ts';
import { MAX_WATERMARK, MIN_WATERMARK, NO_TIMESTAMP } from '../time/element.ts';
import { KeyedTimers } from '../time/keyed-timers.ts';
import type { TimedOperator, TimedOperatorOutput } from '../time/timed-operator.ts';
import { CheckpointedState } from './checkpointed-state.ts';
import { KeyedContextImpl } from './keyed-context.ts';
import { KeyedStateAccess } from './keyed-state-access.ts';
import { cutState, openKeyedState } from './operator-state.ts';
import { type OperatorContext, type OperatorCut, RESOLVED, type SubtaskOperator } from './operator.ts';

type OnTimer = (timeMs: number, context: OnTimerContext<unknown>, out: Collector<unknown>) => void;
type OnElement = (value: unknown, context: OnTimerContext<unknown>, out: Collector<unknown>) => void;

/** A process function of one or two inputs, as the operator calls it. */
export interface ProcessFunctionCalls {
  /** The author's object, for what it may be besides. */
  readonly fn?: object;
  readonly open: ((context: KeyedRuntimeContext) => void) | undefined;
  /** By input. */
  readonly elements: readonly OnElement[];
  readonly onTimer: OnTimer | undefined;
  readonly close: (() => void) | undefined;
}

export interface KeyedProcessDefinition {
  /** By input. */
  readonly keySelectors: readonly ((value: unknown) => unknown)[];
  readonly create: () => ProcessFunctionCalls;
}

export const TIMER_STATE_PREFIX = 'millrace.timers.';
/** Longer delays overflow Node's timers; the timer is looked at again then. */
const SCHEDULE_MS_MAX = 1_000_000_000;

/**
 * Runs a keyed process function: its key's state, its timers in event time (fired by watermarks) and in
 * processing time (fired between slices, by the worker's clock).
 */
export class KeyedProcessOperator implements SubtaskOperator, TimedOperator {
  readonly site: OperatorSite;
  readonly makesWatermarks = false;
  /** What goes into a state belongs to it. */
  readonly keepsRecords = true;
  private output: TimedOperatorOutput | undefined;
  private backend: KeyedStateBackend | undefined;
  private checkpointed: CheckpointedState | undefined;
  private calls: ProcessFunctionCalls | undefined;
  private eventTimers: KeyedTimers | undefined;
  private processingTimers: KeyedTimers | undefined;
  private ctx: KeyedContextImpl | undefined;
  private watermarkMs = MIN_WATERMARK;
  private wakeUp: { readonly timeMs: number; readonly timer: Timer } | undefined;
  /** What the chain behind threw: the author's function may have caught it, or be blamed for it. */
  private downstream: { readonly error: unknown } | undefined;

  constructor(
    private readonly definition: KeyedProcessDefinition,
    private readonly context: OperatorContext,
    /** Processing-time timers are due. */
    private readonly onDue: () => void,
  ) {
    this.site = context.site;
  }

  connect(output: TimedOperatorOutput): void {
    this.output = output;
  }

  async open(): Promise<void> {
    const { maxParallelism } = this.context;
    this.backend = await openKeyedState(this.context);
    try {
      this.eventTimers = new KeyedTimers(this.backend, maxParallelism, `${TIMER_STATE_PREFIX}event`);
      this.processingTimers = new KeyedTimers(this.backend, maxParallelism, `${TIMER_STATE_PREFIX}processing`);
    } catch (error) {
      throw operatorError(this.site, 'to restore its state', error);
    }
    const states = new KeyedStateAccess(this.backend);
    this.ctx = new KeyedContextImpl(this.context.runtime, states, {
      register: (domain, timeMs) => this.register(domain, timeMs),
      delete: (domain, timeMs) => this.timersOf(domain).delete(this.ctx?.key, timeMs),
      currentProcessingTime: () => this.context.clock.wallMs(),
      currentWatermark: () => this.watermarkMs,
      emitSide: (tag, value) => this.emitSide(tag, value),
    });
    const calls = this.create();
    this.checkpointed = await CheckpointedState.open(this.context, calls.fn ?? {}, states);
    try {
      calls.open?.(this.ctx);
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
    this.schedule();
  }

  process(record: unknown): void {
    const { element } = this.output as TimedOperatorOutput;
    const ctx = this.ctx as KeyedContextImpl;
    let result: unknown;
    try {
      const key = (this.definition.keySelectors[element.input] as (value: unknown) => unknown)(record);
      (this.backend as KeyedStateBackend).setCurrentKey(key);
      ctx.enter(key, element.timestampMs, undefined);
      const call = (this.calls as ProcessFunctionCalls).elements[element.input] as OnElement;
      result = call(record, ctx, this.collector);
    } catch (error) {
      if (this.downstream !== undefined) throw this.downstream.error;
      throw userCodeError(this.site, error, record);
    }
    this.checkCall(result, record);
  }

  advance(watermarkMs: number): boolean {
    const timers = this.eventTimers as KeyedTimers;
    // Before its timers fire, as in Flink: they see the watermark that made them due.
    if (watermarkMs > this.watermarkMs) this.watermarkMs = watermarkMs;
    return this.fire(timers, watermarkMs, 'EVENT_TIME');
  }

  fireProcessingTime(): boolean {
    // No timer emits anything behind the end of the data.
    if (this.watermarkMs === MAX_WATERMARK) return true;
    const done = this.fire(this.processingTimers as KeyedTimers, this.context.clock.wallMs(), 'PROCESSING_TIME');
    if (done) this.schedule();
    return done;
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    const keyed = present(this.backend, 'the state of an open operator');
    this.checkpointed?.cut(checkpointId);
    return cutState(this.context, { keyed, operator: [this.checkpointed?.backend] }, checkpointId, options);
  }

  checkpointCompleted(checkpointId: number): Promise<void> {
    this.backend?.checkpointCompleted(checkpointId);
    return RESOLVED;
  }

  checkpointAborted(checkpointId: number): void {
    this.backend?.checkpointAborted(checkpointId);
  }

  finish(): Promise<void> {
    return RESOLVED;
  }

  async close(): Promise<void> {
    this.wakeUp?.timer.cancel();
    this.wakeUp = undefined;
    const { calls } = this;
    this.calls = undefined;
    try {
      calls?.close?.();
    } finally {
      this.backend?.dispose();
      this.backend = undefined;
    }
  }

  private create(): ProcessFunctionCalls {
    try {
      this.calls = this.definition.create();
      return this.calls;
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  private readonly collector: Collector<unknown> = {
    collect: (value) => {
      try {
        (this.output as TimedOperatorOutput).emit(value);
      } catch (error) {
        this.downstream = { error };
        throw error;
      }
    },
  };

  private emitSide(tag: string, value: unknown): void {
    try {
      (this.output as TimedOperatorOutput).emitSide(tag, value);
    } catch (error) {
      this.downstream = { error };
      throw error;
    }
  }

  private fire(timers: KeyedTimers, untilMs: number, domain: TimeDomain): boolean {
    const output = this.output as TimedOperatorOutput;
    const ctx = this.ctx as KeyedContextImpl;
    for (let due = timers.pop(untilMs); due !== undefined; due = timers.pop(untilMs)) {
      const { timeMs, timer } = due;
      const timestampMs = domain === 'EVENT_TIME' ? timeMs : NO_TIMESTAMP;
      output.element.timestampMs = timestampMs;
      ctx.enter(timer.key, timestampMs, domain);
      let result: unknown;
      try {
        result = this.calls?.onTimer?.(timeMs, ctx, this.collector);
      } catch (error) {
        if (this.downstream !== undefined) throw this.downstream.error;
        throw userCodeError(this.site, error, { timer: timeMs, domain, key: timer.key });
      }
      output.element.timestampMs = NO_TIMESTAMP;
      this.checkCall(result, due);
      if (output.shouldPause()) return timers.nextMs > untilMs;
    }
    return true;
  }

  /** After a call that did not throw. */
  private checkCall(result: unknown, record: unknown): void {
    if (this.downstream !== undefined) throw this.downstream.error;
    if (!(result instanceof Promise)) return;
    result.catch(() => undefined); // refused: its own failure must not become an unhandled rejection
    const error = new InvalidArgumentError('the function returned a promise; process functions must be synchronous');
    throw userCodeError(this.site, error, record);
  }

  private register(domain: TimeDomain, timeMs: number): void {
    if (this.calls?.onTimer === undefined) throw noOnTimer();
    this.timersOf(domain).register(this.ctx?.key, timeMs);
    if (domain === 'PROCESSING_TIME' && (this.wakeUp === undefined || timeMs < this.wakeUp.timeMs)) this.schedule();
  }

  private timersOf(domain: TimeDomain): KeyedTimers {
    return (domain === 'EVENT_TIME' ? this.eventTimers : this.processingTimers) as KeyedTimers;
  }

  /** Sees to it that somebody looks when the earliest processing-time timer is due. */
  private schedule(): void {
    const { clock, signal } = this.context;
    const timeMs = this.processingTimers?.nextMs ?? Number.POSITIVE_INFINITY;
    if (this.wakeUp?.timeMs === timeMs) return;
    this.wakeUp?.timer.cancel();
    this.wakeUp = undefined;
    if (timeMs === Number.POSITIVE_INFINITY || signal.aborted) return;
    const delayMs = Math.min(SCHEDULE_MS_MAX, Math.max(0, timeMs - clock.wallMs()));
    const timer = clock.schedule(delayMs, () => {
      this.wakeUp = undefined;
      this.onDue();
    });
    this.wakeUp = { timeMs, timer };
  }
}

function noOnTimer(): InvalidArgumentError {
  return new InvalidArgumentError('a timer was registered, but the function has no method onTimer()');
}
