import type { DirectLine } from '../exchange/direct-line.ts';
import type { Collector, KeySelector, ReduceFunction } from '../api/functions.ts';
import type { SinkWriter } from '../api/sink.ts';
import type { KeyedStateBackend, PackedSums, ValueState } from '../state/ports.ts';
import type { OperatorSite } from './operator-error.ts';

/**
 * What a chain does with records, without how: the interpreter pushes, a compiler may fuse. Whatever
 * has a life (state, files, transactions) is an operator elsewhere; here it is one function.
 */
export type ChainStep =
  /** The head of a source's chain: passes on what the reader emits. */
  | { readonly kind: 'source' }
  | { readonly kind: 'map'; readonly fn: (value: unknown) => unknown }
  | { readonly kind: 'flatMap'; readonly fn: (value: unknown) => Iterable<unknown> }
  | { readonly kind: 'filter'; readonly fn: (value: unknown) => boolean }
  /** One result per record; the operator behind it wraps its own errors. */
  | {
      readonly kind: 'reduce';
      readonly apply: (value: unknown) => unknown;
      readonly keyed?: () => KeyedReduce;
      readonly sumOf?: string | number | undefined;
    }
  /** Says when each record happened while those behind it have it. */
  | { readonly kind: 'stamp'; readonly stamp: Stamping }
  /** The record goes into its window; results come at other times. */
  | { readonly kind: 'window'; readonly window: WindowAccess }
  /** `writer`: what `write` and the task's looks at the sink come down to, for a chain that does both by itself. */
  | {
      readonly kind: 'write';
      readonly write: (value: unknown) => void;
      readonly writer?: () => Pick<SinkWriter<unknown>, 'write' | 'ready'>;
    };

/** What becomes of timestamps, for a chain that calls the author's function by itself. */
export interface Stamping {
  /** Undefined: records keep what they have. */
  readonly assign: ((record: unknown, before: number | undefined) => unknown) | undefined;
  /** Where the record in hand has its timestamp. */
  readonly element: { timestampMs: number };
  /** What `assign` gave becomes a timestamp. Throws for what is none. */
  saw(given: unknown, record: unknown): number;
}

/** What `process` does, for a chain that does most of it by itself. */
export interface WindowAccess {
  process(record: unknown): void;
  readonly keySelector: KeySelector<unknown>;
  readonly element: { readonly timestampMs: number };
  /** Of the window that is looked at: from its first millisecond up to, not including, the other. */
  readonly startMs: number;
  readonly endMs: number;
  /** Looks at the window of the record in hand instead. False: it was too late for that, and is dealt with. */
  locate(record: unknown): boolean;
  /** Into the window that is looked at. */
  add(record: unknown, key: unknown): void;
  /** The field that `add` adds up, and the short way to that. */
  readonly sumOf: string | number | undefined;
  readonly sums: PackedSums | undefined;
}

/** What `apply` of a reduce works with, for a chain that does the same by itself. Asked once the operator is open. */
export interface KeyedReduce {
  readonly keySelector: KeySelector<unknown>;
  readonly fn: ReduceFunction<unknown>;
  readonly backend: KeyedStateBackend;
  readonly state: ValueState<unknown>;
  /** When `fn` adds up numbers of a field, and the state has a shorter way for that. */
  readonly sums?: { readonly field: string | number; readonly cells: PackedSums } | undefined;
}

/** Takes records that leave the task. */
export interface RecordOutput {
  /** While it has credit, a chain may give its records to `receive` instead, each at the price of one. */
  readonly line?: DirectLine | undefined;
  emit(record: unknown): void;
}

export interface ChainNode {
  readonly site: OperatorSite;
  readonly step: ChainStep;
  /** Indexes of the chained operators that read this one's output: later ones only, so a tree or a DAG. */
  readonly chained: readonly number[];
  readonly outputs: readonly RecordOutput[];
}

export interface ChainSpec {
  /** In topological order; the first takes the task's input. */
  readonly nodes: readonly ChainNode[];
  /**
   * Asked between the elements of a flatMap: true when the outputs have no room or the slice is over.
   * Without it one record that becomes a million would be held in memory at once. `elements`: how many
   * there were since it was last asked, 1 if left out.
   */
  readonly shouldPause: (elements?: number) => boolean;
  /** How many of the outputs are full, for a chain that asks less often and looks at this in between. */
  readonly room?: { readonly full: number };
  /** What leaves here may come to sinks and outputs that the chain does not know of. */
  readonly opaque?: boolean;
  /** Whether outputs or sinks have no room; what `shouldPause` asks, but for the clock. */
  readonly blocked?: () => boolean;
}

export interface Chain {
  /** Pushes one record through. When `paused`, a flatMap on its way keeps it for later. */
  process(record: unknown): void;
  /**
   * Pushes `records` from index `from` up to, not including, `to`. Stops behind a record after which
   * nothing more should come for now; gives the index of the next.
   */
  processRange(records: readonly unknown[], from: number, to: number): number;
  /** For one producer in this thread: a function that takes a record at once and never throws. */
  receiver(ends: ReceiverEnds, time?: ReceiverTime): (record: unknown) => void;
  /** What the chain does first may keep records and change them. */
  readonly keepsRecords: boolean;
  /** Takes what a source emits. */
  readonly collector: ChainCollector;
  /** Some flatMap holds elements that are still to be emitted: nothing else may be processed before. */
  readonly paused: boolean;
  /** Goes on emitting until done or told to pause again. */
  resume(): void;
  /** Ends iterations that will never be resumed. */
  close(): void;
}

export interface ReceiverEnds {
  failed(error: unknown): void;
  /** Behind a record after which no other may come for now. */
  full(): void;
}

/** Of a chain that looks at time: where its record's is kept, and where the producer says it. */
export interface ReceiverTime {
  readonly element: { timestampMs: number; input: number };
  readonly input: number;
  readonly from: { readonly timestampMs: number };
}

export interface ChainCollector extends Collector<unknown> {
  /** What `collect` threw: a reader that swallows it must not turn a failure into a loss. */
  readonly failure: unknown;
}

export interface ChainFactory {
  create(spec: ChainSpec): Chain;
}
