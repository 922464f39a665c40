import type { ObjectStore } from '../../src/contracts/object-store.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { asError, MillraceError } from '../../src/kernel/errors.ts';
import type { Digest } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination } from '../coordination/coordination.ts';
import type { ClusterKeys } from './cluster-keys.ts';
import type { FencedWriter } from './fenced-writer.ts';
import { chunks } from './fenced-writer.ts';
import { digestOfBytes, type ObjectPointer } from './object-codec.ts';

/** What all stores of one cluster share. */
export interface StoreDeps {
  readonly coordination: Coordination;
  readonly objects: ObjectStore;
  readonly keys: ClusterKeys;
  readonly writer: FencedWriter;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * A pointer must follow its object within this time, else it is not written at all. The sweeper
 * removes an object that nothing points to only when it is older (its grace is checked to be), so an
 * object on its way to being pointed to is never swept from under its writer.
 */
export const POINT_DEADLINE_MS = 60_000;

/** An object that has been stored and may be pointed to until the deadline. */
export interface StoredObject extends ObjectPointer {
  /** Throws `TIMEOUT` when it is too late to point to it. Call right before the pointer transaction. */
  assertFresh(): void;
}

export async function putObject(deps: StoreDeps, objectKey: string, bytes: Uint8Array): Promise<StoredObject> {
  const startedMs = deps.clock.nowMs();
  await deps.objects.put(objectKey, bytes);
  return {
    objectKey,
    digest: digestOfBytes(bytes) as Digest,
    bytes: bytes.length,
    assertFresh() {
      const elapsedMs = deps.clock.nowMs() - startedMs;
      if (elapsedMs > POINT_DEADLINE_MS)
        throw new MillraceError(
          'TIMEOUT',
          `storing ${objectKey} took ${Math.round(elapsedMs)} ms; nothing was changed`,
          {
            hint: 'The object store is slow; try again.',
          },
        );
    },
  };
}

const DELETE_CHUNK = 500;

/**
 * The second half of a deletion, after the pointer has gone. A failure costs space, not truth: it is
 * logged and left to the sweeper, which finds the objects by that nothing points to them.
 */
export async function deleteObjects(deps: StoreDeps, what: string, objectKeys: readonly string[]): Promise<void> {
  for (const part of chunks(objectKeys, DELETE_CHUNK)) {
    try {
      await deps.objects.delete(part);
    } catch (error) {
      deps.log.warn({ err: asError(error), what, objects: part.length }, 'objects left to the sweeper');
    }
  }
}
