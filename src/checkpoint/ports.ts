import type { CheckpointMetadata, CompletedCheckpoint } from '../contracts/checkpoint.ts';
import type { FencingToken, JobId } from '../kernel/ids.ts';

/** Completed checkpoints of one job. */
export interface CompletedCheckpointStore {
  /**
   * Metadata object first, then the fenced pointer transaction. When it resolves the checkpoint is
   * completed: only then may anybody be told. After `UNKNOWN_OUTCOME` the store has read back by a
   * unique id; if even that failed the metadata object stays and the error is thrown.
   */
  add(metadata: CheckpointMetadata, token: FencingToken): Promise<CompletedCheckpoint>;
  /** Pointers in ascending order of id; bodies are not read. */
  listIds(): Promise<readonly { readonly checkpointId: number; readonly metadataKey: string }[]>;
  /** Reads and verifies one. Rejects with `CORRUPT`, `UNSUPPORTED_VERSION`, `UNAVAILABLE`, `NOT_FOUND`. */
  read(checkpointId: number): Promise<CompletedCheckpoint>;
  /**
   * Removes completed checkpoints beyond the newest `retain`: pointer first, then objects that no
   * retained checkpoint references. Failures of the second half are left to the sweeper.
   */
  subsume(retain: number, token: FencingToken): Promise<void>;
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
  /** Reads metadata that the user names (savepoint, retained checkpoint of another job). */
  readExternal(metadataKey: string): Promise<CompletedCheckpoint>;
}
