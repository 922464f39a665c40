import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';

/** The shared object store, with what it holds at hand, and word of what leaves it. */
export class ObservedObjects extends MemoryObjectStore {
  readonly contents = new Map<string, Uint8Array>();

  constructor(
    clock: Clock,
    private readonly onDeleted: (key: string) => void,
  ) {
    super(clock);
  }

  override async put(key: string, bytes: Uint8Array): Promise<void> {
    await super.put(key, bytes);
    this.contents.set(key, bytes);
  }

  override async delete(keys: readonly string[]): Promise<void> {
    await super.delete(keys);
    for (const key of keys) if (this.contents.delete(key)) this.onDeleted(key);
  }
}
