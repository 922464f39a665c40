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
 *
 * Most sinks are easier to write on {@link TwoPhaseCommitSinkFunction}, which keeps the protocol's order.
 */
export interface TwoPhaseCommitSink<T, Committable = unknown> {
  readonly name: string;
  readonly twoPhaseCommit: true;
  createWriter(context: RuntimeContext & CommitContext): TwoPhaseCommitWriter<T, Committable>;
}

export interface CommitContext {
  /** `<token>-<n>` of the deployment: unique over all restarts, later ones compare greater. */
  readonly deployment: string;
  /** Aborted when the attempt is ended: nothing should be waited for any longer. */
  readonly signal?: AbortSignal;
}

/** What every commit carries, so that a store that can compare may refuse an older deployment's. */
export interface CommitRequest {
  /** Of the attempt that commits; see {@link CommitContext}. */
  readonly deployment: string;
  /** Commits of one writer come in ascending order of it. */
  readonly checkpointId: number;
}

export interface TwoPhaseCommitWriter<T, Committable> {
  /** `restored`: committables of the checkpoint restored; commit them first. Also removes this subtask's leftovers. */
  open(restored: readonly Committable[]): Promise<void>;
  write(value: T): void;
  ready(): Promise<void> | undefined;
  prepareCommit(checkpointId: number): Promise<readonly Committable[]>;
  /** Rejecting with `FencedError` says that a newer deployment has taken over: it is not tried again. */
  commit(committables: readonly Committable[], request: CommitRequest): Promise<void>;
  /** Removes uncommitted output of this writer, where it can. Not called after a crash. */
  close(): Promise<void>;
}
