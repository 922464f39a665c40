import type { CompletedCheckpoint } from '../contracts/checkpoint.ts';
import { isBorrowed } from '../contracts/state-objects.ts';
import type { CheckpointAck } from '../contracts/task.ts';
import { objectKeysOf, objectKeysOfMetadata } from './checkpoint-metadata.ts';

/** Objects of checkpoints that may be restored: never discarded, whoever else refers to them. */
export class RestorableObjects {
  private readonly byCheckpoint = new Map<number, ReadonlySet<string>>();

  add({ metadata }: CompletedCheckpoint, { own }: { readonly own: boolean } = { own: true }): void {
    // An external one keeps its objects under a key of its own: ids of two jobs may be equal.
    const key = own ? metadata.checkpointId : -metadata.checkpointId;
    this.byCheckpoint.set(key, new Set(objectKeysOfMetadata(metadata)));
  }

  /** What goes with a checkpoint that did not complete. */
  discardable(acks: readonly CheckpointAck[]): string[] {
    // What it only referred to is another checkpoint's.
    const own = acks.flatMap((ack) => objectKeysOf(ack).filter((key) => !isBorrowed(key, ack)));
    return own.filter((key) => {
      for (const set of this.byCheckpoint.values()) if (set.has(key)) return false;
      return true;
    });
  }

  /** Only these, and what is newer than `newest`, may still be restored. */
  keepOnly(retained: ReadonlySet<number>, newest: number): void {
    for (const id of this.byCheckpoint.keys()) {
      // Negative: external. Newer than what was listed: completed meanwhile.
      if (id > 0 && id < newest && !retained.has(id)) this.byCheckpoint.delete(id);
    }
  }
}
