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
  | { readonly kind: 'reduce'; readonly apply: (value: unknown) => unknown }
  | { readonly kind: 'write'; readonly write: (value: unknown) => void };

/** Takes records that leave the task. */
export interface RecordOutput {
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
   * Without it one record that becomes a million would be held in memory at once.
   */
  readonly shouldPause: () => boolean;
}

export interface Chain {
  /** Pushes one record through. When `paused`, a flatMap on its way keeps it for later. */
  process(record: unknown): void;
  /** Some flatMap holds elements that are still to be emitted: nothing else may be processed before. */
  readonly paused: boolean;
  /** Goes on emitting until done or told to pause again. */
  resume(): void;
  /** Ends iterations that will never be resumed. */
  close(): void;
}

export interface ChainFactory {
  create(spec: ChainSpec): Chain;
}
