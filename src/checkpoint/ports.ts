import type { CheckpointKind, CheckpointMetadata, CompletedCheckpoint, StopMode } from '../contracts/checkpoint.ts';
import type { OperationStore, TriggerId } from '../contracts/operations.ts';
import type { FencingToken, JobId } from '../kernel/ids.ts';

export interface ListedCheckpoint {
  readonly checkpointId: number;
  readonly metadataKey: string;
  readonly kind: CheckpointKind;
  /** The job has stopped with it. */
  readonly stop?: StopMode | undefined;
}

/** What becomes durable in the very transaction that completes a checkpoint. */
export interface Completion {
  /** A savepoint's folder. */
  readonly location?: string | undefined;
  readonly stop?: StopMode | undefined;
  /** The result of the operation that asked for it. Without such an operation in progress it is not completed. */
  readonly triggerId?: TriggerId | undefined;
  /** The wish to cancel the job. */
  readonly cancelJob?: boolean | undefined;
}

/** Completed checkpoints of one job. */
export interface CompletedCheckpointStore {
  /**
   * Metadata object first, then the fenced pointer transaction. When it resolves the checkpoint is
   * completed: only then may anybody be told. After `UNKNOWN_OUTCOME` the store has read back by a
   * unique id; if even that failed the metadata object stays and the error is thrown.
   */
  add(metadata: CheckpointMetadata, token: FencingToken, completion?: Completion): Promise<CompletedCheckpoint>;
  /** Pointers in ascending order of id; bodies are not read. */
  listIds(): Promise<readonly ListedCheckpoint[]>;
  /** Reads and verifies one. Rejects with `CORRUPT`, `UNSUPPORTED_VERSION`, `UNAVAILABLE`, `NOT_FOUND`. */
  read(checkpointId: number): Promise<CompletedCheckpoint>;
  /**
   * Removes completed checkpoints beyond the newest `retain`: pointer first, then objects that no
   * retained checkpoint references. Failures of the second half are left to the sweeper.
   */
  subsume(retain: number, token: FencingToken): Promise<void>;
  /**
   * Makes a savepoint or retained checkpoint this job's own: it is then listed, subsumed and deleted like one that
   * the job made, and ids go on behind it. Idempotent. Rejects with `NOT_FOUND`, or `CONFLICT` when another owns it.
   */
  claim(metadataKey: string, token: FencingToken): Promise<number>;
  /** A copy of an object for a savepoint that must not depend on checkpoints. */
  copy(objectKey: string, targetKey: string, signal: AbortSignal): Promise<void>;
  /** Discards objects uploaded for a checkpoint that never completed. Never rejects. */
  discard(objectKeys: readonly string[]): Promise<void>;
}

/** Checkpoint ids strictly rise over all leaders: each is reserved by a fenced transaction before use. */
export interface CheckpointIdCounter {
  next(token: FencingToken): Promise<number>;
}

export interface CheckpointStores {
  completed(jobId: JobId): CompletedCheckpointStore;
  counter(jobId: JobId): CheckpointIdCounter;
  readonly operations: OperationStore;
  /** Reads metadata that the user names (savepoint, retained checkpoint of another job). */
  readExternal(metadataKey: string): Promise<CompletedCheckpoint>;
}
