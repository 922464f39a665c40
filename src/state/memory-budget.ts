import { MillraceError } from '../kernel/errors.ts';

/** One backend's part of the memory. */
export interface MemoryShare {
  /** Throws `TOO_LARGE` when all backends together hold more than the limit. */
  check(): void;
  /** Its memory counts no more. Idempotent. */
  release(): void;
}

/**
 * The memory that all state of one process or slot may take, by estimate. A task that fails with the
 * numbers and a hint is worth more than a process that dies of memory with none.
 */
export class MemoryBudget {
  private readonly holders = new Map<object, { readonly owner: string; readonly bytes: () => number }>();

  /** Undefined: no limit. */
  constructor(private readonly limitBytes: number | undefined) {}

  share(owner: string, bytes: () => number): MemoryShare {
    const id = {};
    this.holders.set(id, { owner, bytes });
    return {
      check: () => this.check(),
      release: () => void this.holders.delete(id),
    };
  }

  get usedBytes(): number {
    let sum = 0;
    for (const { bytes } of this.holders.values()) sum += bytes();
    return sum;
  }

  private check(): void {
    if (this.limitBytes === undefined) return;
    const usedBytes = this.usedBytes;
    if (usedBytes <= this.limitBytes) return;
    const largest = [...this.holders.values()]
      .map(({ owner, bytes }) => ({ owner, bytes: bytes() }))
      .sort((a, b) => b.bytes - a.bytes)
      .slice(0, 3)
      .map(({ owner, bytes }) => `${owner}: ${mib(bytes)}`);
    throw new MillraceError(
      'TOO_LARGE',
      `state in memory takes about ${mib(usedBytes)}, more than the limit of ${mib(this.limitBytes)} (largest: ${largest.join('; ')})`,
      {
        hint: 'keep the state on disk (state.backend.type: lmdb), spread it over more slots, give it a time-to-live, or raise taskmanager.memory.slot-heap.size',
      },
    );
  }
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
