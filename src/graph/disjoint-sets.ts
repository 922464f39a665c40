/** Union-find over 0..size-1. */
export class DisjointSets {
  private readonly parent: Int32Array;

  constructor(size: number) {
    this.parent = Int32Array.from({ length: size }, (_, i) => i);
  }

  /** The representative of `item`'s set. */
  find(item: number): number {
    let root = item;
    for (let up = this.up(root); up !== root; up = this.up(root)) root = up;
    // Path compression: the next look-up is short.
    for (let at = item; at !== root; ) {
      const next = this.up(at);
      this.parent[at] = root;
      at = next;
    }
    return root;
  }

  join(a: number, b: number): void {
    const rootA = this.find(a);
    const rootB = this.find(b);
    if (rootA !== rootB) this.parent[Math.max(rootA, rootB)] = Math.min(rootA, rootB);
  }

  private up(item: number): number {
    return this.parent[item] ?? item;
  }
}
