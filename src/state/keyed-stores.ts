import { join } from 'node:path';
import type { StateBackendType } from '../contracts/job-graph.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { asError, MillraceError } from '../kernel/errors.ts';
import { HeapStore } from './heap-store.ts';
import type { KeyedStore } from './keyed-state.ts';
import type { LmdbOptions, StateScope } from './state-backends.ts';

const CACHE_BYTES = 64 * 1024 * 1024;
/** One operator's cache takes at most this part of what all state may take. */
const CACHE_SHARE = 4;

/** Makes stores of either kind, and sees to it that what they had on disk goes. */
export class KeyedStores {
  private readonly closings = new Set<Promise<void>>();
  private failure: Error | undefined;
  private opened = 0;

  constructor(
    private readonly lmdb: LmdbOptions | undefined,
    /** Of all state, so caches may take a part of it only. */
    private readonly memoryLimitBytes: number = Number.POSITIVE_INFINITY,
  ) {}

  async open(
    type: StateBackendType,
    scope: StateScope,
    { range, maxParallelism }: { readonly range: KeyGroupRange; readonly maxParallelism: number },
  ): Promise<KeyedStore> {
    if (type === 'hashmap') return new HeapStore(range, maxParallelism);
    const { lmdb } = this;
    if (lmdb === undefined) {
      throw new MillraceError('CONFIGURATION', 'the state backend lmdb needs a folder on a local disk', {
        hint: 'set io.tmp.dirs',
      });
    }
    // A native module: loaded only where it is used.
    const { LmdbStore } = await import('./lmdb/lmdb-store.ts');
    const { jobId, operatorId, attemptId, subtaskIndex } = scope;
    const folder = `${jobId}-${operatorId}-${subtaskIndex}-${attemptId}-${++this.opened}`;
    return new LmdbStore(range, maxParallelism, {
      directory: join(lmdb.directory, folder),
      cacheBytes: Math.min(lmdb.cacheBytes ?? CACHE_BYTES, this.memoryLimitBytes / CACHE_SHARE),
      own: (work) => this.own(work),
      ...(lmdb.dirtyRowsMax === undefined ? {} : { dirtyRowsMax: lmdb.dirtyRowsMax }),
    });
  }

  async close(): Promise<void> {
    while (this.closings.size > 0) await Promise.all(this.closings);
    if (this.failure === undefined) return;
    const error = this.failure;
    this.failure = undefined;
    throw error;
  }

  private own(work: () => Promise<void>): void {
    const closing: Promise<void> = work()
      .catch((error: unknown) => {
        this.failure ??= asError(error);
      })
      .finally(() => void this.closings.delete(closing));
    this.closings.add(closing);
  }
}
