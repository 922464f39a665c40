import type { Collector, KeySelector } from '../../api/functions.ts';
import type { OperatorDefinition } from '../../api/operator-definition.ts';
import type { TimeWindow, WindowContext } from '../../api/windows.ts';
import { present } from '../../kernel/assert.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { KeyedStateBackend, PackedSums, Panes, SnapshotOptions } from '../../state/ports.ts';
import type { WindowAccess } from '../chain.ts';
import { operatorError, type OperatorSite, userCodeError } from '../operator-error.ts';
import { MIN_WATERMARK, newElement, NO_TIMESTAMP } from '../time/element.ts';
import type { TimedOperator, TimedOperatorOutput } from '../time/timed-operator.ts';
import { cutState, openKeyedState } from './operator-state.ts';
import { type OperatorContext, type OperatorCut, RESOLVED, type SubtaskOperator } from './operator.ts';
import { type ContentsOfWindow, contentsOf } from './window-contents.ts';

type WindowDefinition = Extract<OperatorDefinition, { kind: 'window' }>;

const STATE_NAME = 'millrace.panes';

interface OpenWindow {
  readonly window: TimeWindow;
  readonly sums: PackedSums | undefined;
  readonly add: (record: unknown, key: unknown) => void;
}

/**
 * Tumbling windows as panes: each window's keys lie together, so that a record is one look-up, and a window
 * that has ended is read and let go of as a whole.
 *
 *   W1. A window fires once, when the watermark reaches its last millisecond; its pane is gone with that.
 *   W2. A record whose window has fired is late: it changes nothing, and goes to the side output if there is one.
 *   W3. Windows fire in the order of their ends.
 */
export class WindowOperator implements SubtaskOperator, TimedOperator, WindowAccess {
  readonly site: OperatorSite;
  readonly makesWatermarks = false;
  readonly keepsRecords: boolean;
  readonly keySelector: KeySelector<unknown>;
  readonly sumOf: string | number | undefined;
  readonly emitsLate: boolean;
  /** Until it is connected nothing has a time. */
  element: TimedOperatorOutput['element'] = newElement();
  private readonly contents: ContentsOfWindow;
  private output: TimedOperatorOutput | undefined;
  private backend: KeyedStateBackend | undefined;
  private panes: Panes | undefined;
  private readonly windows = new Map<number, OpenWindow>();
  /** The one that the last record belonged to: usually that of the next one. Its fields follow, for chains. */
  private looked: OpenWindow | undefined;
  startMs = Number.NaN;
  endMs = Number.NaN;
  sums: PackedSums | undefined;
  private firing: { readonly window: TimeWindow; readonly rows: Iterator<readonly [unknown, unknown]> } | undefined;
  private watermarkMs = MIN_WATERMARK;
  private lateRecords = 0;
  /** What the chain behind threw: the author's function may have caught it, or be blamed for it. */
  private downstream: { readonly error: unknown } | undefined;

  constructor(
    private readonly definition: WindowDefinition,
    private readonly context: OperatorContext,
  ) {
    this.site = context.site;
    this.contents = contentsOf(definition.contents, (key) => (this.backend as KeyedStateBackend).setCurrentKey(key));
    this.keepsRecords = this.contents.keepsRecords;
    this.keySelector = definition.keySelector;
    this.sumOf = definition.contents.kind === 'reduce' ? definition.contents.sumOf : undefined;
    this.emitsLate = definition.lateTag !== undefined;
  }

  connect(output: TimedOperatorOutput): void {
    this.output = output;
    this.element = output.element;
  }

  get window(): WindowAccess {
    return this;
  }

  async open(): Promise<void> {
    this.backend = await openKeyedState(this.context);
    try {
      this.panes = this.backend.panes(STATE_NAME);
      for (const startMs of this.panes.times()) this.windowFrom(startMs);
    } catch (error) {
      throw operatorError(this.site, 'to restore its state', error);
    }
    try {
      this.contents.open?.(this.context.runtime);
    } catch (error) {
      throw operatorError(this.site, 'to open', error);
    }
  }

  process(record: unknown): void {
    const { timestampMs } = this.element;
    if (!(timestampMs >= this.startMs && timestampMs < this.endMs) && !this.locate(record)) return;
    try {
      this.add(record, this.keySelector(record));
    } catch (error) {
      throw userCodeError(this.site, error, record);
    }
  }

  locate(record: unknown): boolean {
    const { timestampMs } = this.element;
    if (Number.isNaN(timestampMs)) throw userCodeError(this.site, noTimestamp(), record);
    const { windows } = this.definition;
    const startMs = windows.startOf(timestampMs);
    if (startMs + windows.sizeMs - 1 <= this.watermarkMs) {
      this.late(record); // W2
      return false;
    }
    this.lookAt(this.windows.get(startMs) ?? this.windowFrom(startMs));
    return true;
  }

  add(record: unknown, key: unknown): void {
    (this.looked as OpenWindow).add(record, key);
  }

  advance(watermarkMs: number): boolean {
    if (watermarkMs > this.watermarkMs) this.watermarkMs = watermarkMs;
    for (;;) {
      this.firing ??= this.nextToFire();
      if (this.firing === undefined) return true;
      if (!this.fire(this.firing)) return false;
      this.firing = undefined;
    }
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut {
    const keyed = present(this.backend, 'the state of an open operator');
    return cutState(this.context, { keyed }, checkpointId, options);
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
    if (this.lateRecords > 0) {
      const { lateRecords } = this;
      this.context.log.info({ operator: this.site.name, lateRecords }, 'records came too late for their windows');
    }
    try {
      this.contents.close?.();
    } finally {
      this.backend?.dispose();
      this.backend = undefined;
    }
  }

  private lookAt(open: OpenWindow | undefined): void {
    this.looked = open;
    this.startMs = open?.window.startMs ?? Number.NaN;
    this.endMs = open?.window.endMs ?? Number.NaN;
    this.sums = open?.sums;
  }

  private windowFrom(startMs: number): OpenWindow {
    const pane = present(this.panes, 'the panes of an open operator').pane(startMs);
    const window = { startMs, endMs: startMs + this.definition.windows.sizeMs };
    const sums = this.sumOf === undefined ? undefined : pane.sums(this.sumOf);
    const open: OpenWindow = { window, sums, add: this.contents.into(pane, sums) };
    this.windows.set(startMs, open);
    return open;
  }

  /** W3 */
  private nextToFire(): WindowOperator['firing'] {
    let earliest: TimeWindow | undefined;
    for (const { window } of this.windows.values()) {
      if (window.endMs - 1 > this.watermarkMs) continue;
      if (earliest === undefined || window.startMs < earliest.startMs) earliest = window;
    }
    if (earliest === undefined) return undefined;
    const pane = present(this.panes, 'the panes of an open operator').pane(earliest.startMs);
    return { window: earliest, rows: pane.entries()[Symbol.iterator]() };
  }

  /** False when it paused before the last key. */
  private fire({ window, rows }: NonNullable<WindowOperator['firing']>): boolean {
    const output = this.output as TimedOperatorOutput;
    const context = this.contextOf(window);
    for (let next = rows.next(); next.done !== true; next = rows.next()) {
      const [key, value] = next.value;
      output.element.timestampMs = window.endMs - 1;
      let result: unknown;
      try {
        result = this.contents.emit(key, value, context, this.collector);
      } catch (error) {
        if (this.downstream !== undefined) throw this.downstream.error;
        throw userCodeError(this.site, error, { window, key });
      } finally {
        output.element.timestampMs = NO_TIMESTAMP;
      }
      if (this.downstream !== undefined) throw this.downstream.error;
      if (result instanceof Promise) throw userCodeError(this.site, refused(result), { window, key });
      if (output.shouldPause()) return false;
    }
    this.panes?.drop(window.startMs); // W1
    this.windows.delete(window.startMs);
    if (this.looked?.window === window) this.lookAt(undefined);
    return true;
  }

  private contextOf(window: TimeWindow): WindowContext {
    return { ...this.context.runtime, window, currentWatermark: () => this.watermarkMs };
  }

  private late(record: unknown): void {
    this.lateRecords++;
    const { lateTag } = this.definition;
    if (lateTag !== undefined) (this.output as TimedOperatorOutput).emitSide(lateTag, record);
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
}

function noTimestamp(): InvalidArgumentError {
  return new InvalidArgumentError('the record has no timestamp, so it is in no window', {
    hint: 'Give the source a WatermarkStrategy, or call assignTimestampsAndWatermarks() before keyBy().',
  });
}

function refused(result: Promise<unknown>): InvalidArgumentError {
  result.catch(() => undefined); // its own failure must not become an unhandled rejection
  return new InvalidArgumentError('the function returned a promise; window functions must be synchronous');
}
