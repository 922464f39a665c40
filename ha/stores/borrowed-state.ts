import type { CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import { isBorrowed } from '../../src/contracts/state-objects.ts';
import { InvalidArgumentError } from '../../src/kernel/errors.ts';
import type { JobId } from '../../src/kernel/ids.ts';
import { type CheckpointPointer, listPointers, type NamedState, stateKeysOf } from './checkpoint-pointers.ts';
import type { StoreDeps } from './store-deps.ts';

/**
 * The pointers that vouch for what a checkpoint refers to and did not write itself: guarded by them, its own
 * pointer is written only while they are there. Few: usually one, the newest. Throws `INVALID_ARGUMENT` when
 * there is none for something: it may be gone, or about to go.
 */
export async function lendersOf(
  deps: StoreDeps,
  jobId: JobId,
  metadata: CheckpointMetadata,
  named: NamedState,
): Promise<readonly CheckpointPointer[]> {
  // Under other prefixes lies what the job was restored from; no checkpoint of its own refers to that.
  const prefix = deps.keys.jobObjects(jobId);
  const missing = new Set(
    [...stateKeysOf(metadata)].filter((key) => key.startsWith(prefix) && isBorrowed(key, metadata)),
  );
  if (missing.size === 0) return [];
  const lenders: CheckpointPointer[] = [];
  const pointers = [
    ...(await listPointers(deps, deps.keys.retainedOf(jobId))),
    ...(await listPointers(deps, deps.keys.checkpoints(jobId))),
  ];
  for (const pointer of pointers.reverse()) {
    const before = missing.size;
    for (const key of await named.by(deps, pointer.record)) missing.delete(key);
    if (missing.size < before) lenders.push(pointer);
    if (missing.size === 0) return lenders;
  }
  const [key] = missing;
  throw new InvalidArgumentError(
    `checkpoint ${metadata.checkpointId} of job ${jobId} refers to ${missing.size} objects that no completed checkpoint holds, among them ${key}`,
    { hint: 'Nothing is lost: the next checkpoint writes anew what it needs.' },
  );
}
