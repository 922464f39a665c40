import type { RuntimeContext } from './functions.ts';

/** A sink without transactions: at-least-once unless its writes are idempotent. */
export interface Sink<T> {
  readonly name: string;
  readonly twoPhaseCommit?: false;
  createWriter(context: RuntimeContext): SinkWriter<T>;
}

export interface SinkWriter<T> {
  open(): Promise<void>;
  write(value: T): void;
  /** Undefined when more can be written now, else a promise to wait for: backpressure. */
  ready(): Promise<void> | undefined;
  /** Everything written so far is out; called before each checkpoint is acknowledged, and at the end. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/**
 * A sink whose output becomes visible only with a completed checkpoint.
 *
 * Protocol: `prepareCommit` cuts the stream synchronously when called (later writes belong to the next
 * transaction) and resolves with plain data once what came before is durable but invisible. That data
 * is part of the checkpoint. After the checkpoint has completed `commit` makes it visible; it must be
 * idempotent, because a restored job commits again what its checkpoint holds. Output never prepared,
 * or prepared for a checkpoint that was not the one restored, stays invisible and is removed.
 */
export interface TwoPhaseCommitSink<T, Committable = unknown> {
  readonly name: string;
  readonly twoPhaseCommit: true;
  createWriter(context: RuntimeContext & CommitContext): TwoPhaseCommitWriter<T, Committable>;
}

export interface CommitContext {
  /** `<token>-<n>` of the deployment: unique over all restarts, later ones compare greater. */
  readonly deployment: string;
}

export interface TwoPhaseCommitWriter<T, Committable> {
  /** `restored`: committables of the checkpoint restored; commit them first. Also removes this subtask's leftovers. */
  open(restored: readonly Committable[]): Promise<void>;
  write(value: T): void;
  ready(): Promise<void> | undefined;
  prepareCommit(checkpointId: number): Promise<readonly Committable[]>;
  commit(committables: readonly Committable[], context: { readonly checkpointId: number }): Promise<void>;
  /** Removes uncommitted output of this writer, where it can. Not called after a crash. */
  close(): Promise<void>;
}
