import { constants, PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import { MillraceError } from '../kernel/errors.ts';

/**
 * Ends a slot that fills its heap before V8 ends the whole process.
 *
 * V8 turns a thread's full heap into an error of that thread only when the allocation that does not fit
 * is small (Node grants it 16 MB of leeway); growing a large Map or array by doubling is not, and aborts
 * the process with all its slots (seen with 512 MiB: Map, array push, spread; not with 64 MiB). So the
 * limit of the configuration is kept here, on what is live after each full collection, and V8's own lies
 * half as much again above it. What remains is code that allocates without ever yielding: V8's limit
 * then ends the thread, or the process, whose tasks are redeployed elsewhere.
 */
export function guardHeap(heapBytes: number, exceeded: (liveBytes: number) => void): () => void {
  const observer = new PerformanceObserver((list) => {
    const full = list.getEntries().some(isFullCollection);
    if (!full) return;
    const liveBytes = getHeapStatistics().used_heap_size;
    if (liveBytes > heapBytes) exceeded(liveBytes);
  });
  observer.observe({ entryTypes: ['gc'] });
  return () => observer.disconnect();
}

/** What V8 is told, for a slot that may use `heapBytes`. */
export function hardHeapLimitMb(heapBytes: number): number {
  return Math.round((heapBytes * 1.5) / MIB) + 64;
}

export function outOfMemory(heapBytes: number, cause?: unknown): MillraceError {
  return new MillraceError(
    'USER_CODE',
    `the slot ran out of memory: its heap is limited to ${Math.round(heapBytes / MIB)} MiB`,
    {
      hint: 'Raise taskmanager.memory.slot-heap.size, spread the job over more slots, or keep less state.',
      cause,
    },
  );
}

const MIB = 1024 * 1024;

/** The types of Node 20 do not know what an entry of kind `gc` carries. */
function isFullCollection(entry: object): boolean {
  const { detail } = entry as { readonly detail?: { readonly kind?: number } };
  return detail?.kind === constants.NODE_PERFORMANCE_GC_MAJOR;
}
