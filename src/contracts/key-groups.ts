import { assert } from '../kernel/assert.ts';

/**
 * Key groups: the unit in which keyed state is kept, moved and restored. A key belongs to one of
 * `maxParallelism` groups for ever; subtasks own contiguous ranges. The arithmetic is Flink's, so
 * ranges are even and a change of parallelism moves few groups.
 */
export interface KeyGroupRange {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
}

export function keyGroupRange(maxParallelism: number, parallelism: number, subtaskIndex: number): KeyGroupRange {
  assert(parallelism <= maxParallelism, 'parallelism must not exceed maxParallelism');
  assert(subtaskIndex >= 0 && subtaskIndex < parallelism, 'subtask index within parallelism');
  return {
    first: Math.floor((subtaskIndex * maxParallelism + parallelism - 1) / parallelism),
    last: Math.floor(((subtaskIndex + 1) * maxParallelism - 1) / parallelism),
  };
}

/** The subtask that owns a key group. */
export function subtaskForKeyGroup(maxParallelism: number, parallelism: number, keyGroup: number): number {
  return Math.floor((keyGroup * parallelism) / maxParallelism);
}
