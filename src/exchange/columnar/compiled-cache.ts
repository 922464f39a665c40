const ENTRIES_MAX = 512;

/**
 * Code generated in this thread, by what it was generated for. Bounded: a stream whose shapes never
 * repeat must not keep the code of each.
 */
export class CompiledCache<T> {
  private readonly entries = new Map<string, T>();

  get(key: string, create: () => T): T {
    let entry = this.entries.get(key);
    if (entry === undefined) {
      entry = create();
      const oldest = this.entries.keys().next();
      if (this.entries.size >= ENTRIES_MAX && !oldest.done) this.entries.delete(oldest.value);
      this.entries.set(key, entry);
    }
    return entry;
  }
}
