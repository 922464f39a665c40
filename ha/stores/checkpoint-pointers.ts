import { CHECKPOINT_METADATA_FORMAT, type CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import { handlesIn } from '../../src/contracts/state-handles.ts';
import { asError, MillraceError } from '../../src/kernel/errors.ts';
import type { JobId } from '../../src/kernel/ids.ts';
import type { Entry, Op } from '../coordination/coordination.ts';
import { decodeObject, readVerified } from './object-codec.ts';
import { decodeRecord } from './record-codec.ts';
import { CHECKPOINT_RECORD, type CheckpointRecord, JOB_RECORD, METADATA_OBJECT } from './records.ts';
import type { StoreDeps } from './store-deps.ts';

/** A completed checkpoint as coordination knows it. */
export interface CheckpointPointer {
  readonly entry: Entry;
  readonly record: CheckpointRecord;
}

/** Ascending by id. Rejects when one of them is unreadable: nobody may believe that it does not exist. */
export async function listPointers(deps: StoreDeps, prefix: string): Promise<readonly CheckpointPointer[]> {
  const { entries } = await deps.coordination.list(prefix);
  return entries.map((entry) => ({ entry, record: decodeRecord(CHECKPOINT_RECORD, entry) }));
}

export async function readMetadata(deps: StoreDeps, record: CheckpointRecord): Promise<CheckpointMetadata> {
  return decodeMetadata(record.metadata.objectKey, await readVerified(deps.objects, record.metadata));
}

/** @throws `CORRUPT` or `UNSUPPORTED_VERSION`. */
export function decodeMetadata(objectKey: string, bytes: Uint8Array): CheckpointMetadata {
  const metadata = decodeObject(METADATA_OBJECT, objectKey, bytes);
  if (metadata.formatVersion > CHECKPOINT_METADATA_FORMAT)
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `checkpoint metadata ${objectKey} has format ${metadata.formatVersion}; this program reads up to ${CHECKPOINT_METADATA_FORMAT}`,
      { hint: 'It was written by a newer millrace: upgrade this master.' },
    );
  return metadata;
}

/** The keys of all state objects that a checkpoint consists of, without its metadata object. */
export function stateKeysOf(metadata: CheckpointMetadata): Set<string> {
  const { operators, inFlight } = metadata;
  const handles = handlesIn({ operators: operators.flatMap(({ subtasks }) => subtasks), inFlight });
  return new Set(handles.flatMap((handle) => (handle.kind === 'object' ? [handle.key] : [])));
}

/** Moves a pointer out of its job's reach, to where it stays until a user deletes it: two operations. */
export function retainOps(deps: StoreDeps, jobId: JobId, { entry, record }: CheckpointPointer): readonly Op[] {
  const key = deps.keys.retained(jobId, record.checkpointId, record.writeId);
  return [
    { kind: 'delete', key: entry.key },
    { kind: 'put', key, value: entry.value },
  ];
}

/** What the state of checkpoints is, kept by metadata object: these never change. */
export class NamedState {
  private readonly keys = new Map<string, ReadonlySet<string>>();

  async by(deps: StoreDeps, record: CheckpointRecord): Promise<ReadonlySet<string>> {
    const { objectKey } = record.metadata;
    const known = this.keys.get(objectKey);
    if (known !== undefined) return known;
    const keys = stateKeysOf(await readMetadata(deps, record));
    this.remember(objectKey, keys);
    return keys;
  }

  remember(metadataKey: string, keys: ReadonlySet<string>): void {
    this.keys.set(metadataKey, keys);
    const [oldest] = this.keys.keys();
    if (this.keys.size > REMEMBERED_MAX && oldest !== undefined) this.keys.delete(oldest);
  }
}

/** Checkpoints whose objects are known without reading: the retained ones, as a rule. */
const REMEMBERED_MAX = 64;

const NOTHING: ReadonlySet<string> = new Set();

/** Metadata that other running jobs were told to start from: they may do so from what this one has claimed. */
async function restoredByOthers(deps: StoreDeps, jobId: JobId): Promise<ReadonlySet<string>> {
  const { entries } = await deps.coordination.list(deps.keys.jobs);
  const records = entries.map((entry) => decodeRecord(JOB_RECORD, entry));
  return new Set(records.flatMap((record) => (record.jobId === jobId ? [] : (record.restoreKey ?? []))));
}

/**
 * The objects that go with `gone`, whose pointers are gone: their metadata, and the job's own state objects
 * that none of `kept` references. `kept` must have been listed after the pointers went, or be all there will
 * ever be: then nothing that is not named by it is ever named again (K4). Undefined when any of the metadata cannot be read: then nothing is known of
 * what is shared, and the sweeper decides later.
 */
export async function objectsOnlyOf(
  deps: StoreDeps,
  jobId: JobId,
  gone: readonly CheckpointPointer[],
  kept: readonly CheckpointPointer[],
  named: NamedState = new NamedState(),
): Promise<readonly string[] | undefined> {
  try {
    const doomed = new Set<string>();
    const others = gone.some(({ record }) => record.claimed === true) ? await restoredByOthers(deps, jobId) : NOTHING;
    // A pointer that is gone from here may have been moved: who asked for its removal and got no answer cannot tell.
    const moved = new Set(kept.map(({ record }) => record.metadata.objectKey));
    const going = gone.filter(
      ({ record: { metadata } }) => !others.has(metadata.objectKey) && !moved.has(metadata.objectKey),
    );
    for (const { record } of going) {
      // State under another job's prefix is that job's (or the sweeper's) to remove. A savepoint's folder is its own.
      const prefixes = [deps.keys.jobObjects(jobId)];
      const { objectKey } = record.metadata;
      if (objectKey.startsWith(deps.keys.allSavepoints))
        prefixes.push(objectKey.slice(0, objectKey.lastIndexOf('/') + 1));
      for (const key of await named.by(deps, record))
        if (prefixes.some((prefix) => key.startsWith(prefix))) doomed.add(key);
    }
    if (doomed.size > 0)
      for (const { record } of kept) for (const key of await named.by(deps, record)) doomed.delete(key);
    return [...going.map(({ record }) => record.metadata.objectKey), ...doomed];
  } catch (error) {
    deps.log.warn({ err: asError(error), jobId }, 'checkpoint metadata unreadable, objects left to the sweeper');
    return undefined;
  }
}
