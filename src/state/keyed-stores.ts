import { join } from 'node:path';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { asError, MillraceError } from '../kernel/errors.ts';
import { HeapStore } from './heap-store.ts';
import type { KeyedStore } from './keyed-state.ts';
import type { StateBackendsOptions, StateScope } from './state-backends.ts';

const CACHE_BYTES = 64 * 1024 * 1024;

/** Makes stores of the kind that was chosen, and sees to it that they go. */
export interface KeyedStores {
  open(scope: StateScope, range: KeyGroupRange, maxParallelism: number): Promise<KeyedStore>;
  close(): Promise<void>;
}

export function keyedStores({ backend = 'heap', lmdb }: StateBackendsOptions): KeyedStores {
  if (backend === 'heap') {
    return {
      open: async (_, range, maxParallelism) => new HeapStore(range, maxParallelism),
      close: async () => undefined,
    };
  }
  if (backend !== 'lmdb') {
    throw new MillraceError('CONFIGURATION', `the state backend '${String(backend)}' does not exist`, {
      hint: "choose 'heap' or 'lmdb'",
    });
  }
  if (lmdb === undefined) {
    throw new MillraceError('CONFIGURATION', "the state backend 'lmdb' needs a directory on a local disk");
  }
  const closings = new Set<Promise<void>>();
  let failure: Error | undefined;
  const own = (work: () => Promise<void>) => {
    const closing: Promise<void> = work()
      .catch((error: unknown) => {
        failure ??= asError(error);
      })
      .finally(() => void closings.delete(closing));
    closings.add(closing);
  };
  let n = 0;
  return {
    open: async ({ jobId, operatorId, attemptId, subtaskIndex }, range, maxParallelism) => {
      // A native module: loaded only where it is used.
      const { LmdbStore } = await import('./lmdb/lmdb-store.ts');
      const directory = join(lmdb.directory, `${jobId}-${operatorId}-${subtaskIndex}-${attemptId}-${++n}`);
      const { dirtyRowsMax } = lmdb;
      return new LmdbStore(range, maxParallelism, {
        directory,
        cacheBytes: lmdb.cacheBytes ?? CACHE_BYTES,
        own,
        ...(dirtyRowsMax === undefined ? {} : { dirtyRowsMax }),
      });
    },
    close: async () => {
      while (closings.size > 0) await Promise.all(closings);
      if (failure === undefined) return;
      const error = failure;
      failure = undefined;
      throw error;
    },
  };
}
