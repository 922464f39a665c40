import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { decodeMetadata } from '../../ha/stores/checkpoint-pointers.ts';
import type { CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { digestOf } from '../../src/kernel/digest.ts';

/**
 * The shared object store, with what it holds at hand, and word of what leaves it. What it holds never changes
 * (it is copied in and copied out), so that what was once found out of an object is true of it for ever.
 */
export class ObservedObjects extends MemoryObjectStore {
  readonly contents = new Map<string, Uint8Array>();
  private readonly digests = new WeakMap<Uint8Array, string>();
  private readonly metadata = new WeakMap<Uint8Array, CheckpointMetadata>();

  constructor(
    clock: Clock,
    private readonly onDeleted: (key: string) => void,
  ) {
    super(clock);
  }

  override async put(key: string, bytes: Uint8Array): Promise<void> {
    await super.put(key, bytes);
    this.contents.set(key, new Uint8Array(bytes));
  }

  digest(bytes: Uint8Array): string {
    const known = this.digests.get(bytes) ?? digestOf(bytes);
    this.digests.set(bytes, known);
    return known;
  }

  /** What checkpoint metadata says. @throws as {@link decodeMetadata} does. */
  metadataIn(key: string, bytes: Uint8Array): CheckpointMetadata {
    const known = this.metadata.get(bytes) ?? decodeMetadata(key, bytes);
    this.metadata.set(bytes, known);
    return known;
  }

  override async delete(keys: readonly string[]): Promise<void> {
    await super.delete(keys);
    for (const key of keys) if (this.contents.delete(key)) this.onDeleted(key);
  }
}
