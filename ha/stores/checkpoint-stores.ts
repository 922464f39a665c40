import type { CheckpointMetadata, CompletedCheckpoint } from '../../src/contracts/checkpoint.ts';
import type { CheckpointIdCounter, CheckpointStores, CompletedCheckpointStore } from '../../src/checkpoint/ports.ts';
import { CorruptError, isMillraceError, MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import type { FencingToken, JobId } from '../../src/kernel/ids.ts';
import { HaCheckpointIdCounter } from './checkpoint-id-counter.ts';
import {
  type CheckpointPointer,
  decodeMetadata,
  listPointers,
  objectsOnlyOf,
  readMetadata,
  retainOps,
  stateKeysOf,
} from './checkpoint-pointers.ts';
import { absent, chunks, unchanged } from './fenced-writer.ts';
import { hasWriteId } from './job-graph-store.ts';
import { encodeObject } from './object-codec.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { CHECKPOINT_RECORD, type CheckpointRecord, METADATA_OBJECT } from './records.ts';
import { deleteObjects, putObject, type StoreDeps } from './store-deps.ts';

/** Two operations each, beside the guards, under the store's limit of 128. */
const SUBSUME_CHUNK = 40;
/** More foreign prefixes than this are recorded as "everything". */
const FOREIGN_MAX = 16;

export class HaCheckpointStores implements CheckpointStores {
  constructor(private readonly deps: StoreDeps) {}

  completed(jobId: JobId): CompletedCheckpointStore {
    return new HaCompletedCheckpointStore(this.deps, jobId);
  }

  counter(jobId: JobId): CheckpointIdCounter {
    return new HaCheckpointIdCounter(this.deps, jobId);
  }

  async readExternal(metadataKey: string): Promise<CompletedCheckpoint> {
    const bytes = await this.deps.objects.get(metadataKey).catch((error: unknown) => {
      if (isMillraceError(error, 'NOT_FOUND'))
        throw new NotFoundError(`there is no checkpoint or savepoint at ${metadataKey}`, { cause: error });
      throw error;
    });
    // No pointer is needed: the object carries its own digest.
    return {
      metadata: decodeMetadata(metadataKey, bytes),
      metadataKey,
      metadataBytes: bytes.length,
    };
  }
}

/**
 * Completed checkpoints of one job.
 *
 * Invariants:
 *   K1. A checkpoint is completed by one fenced transaction that also finds its job still running,
 *       so an ended job never gains a checkpoint.
 *   K2. Its metadata object, and by the caller's word every object it names, is stored before.
 *   K3. Subsuming removes pointers before objects, and no object that a remaining pointer needs.
 */
class HaCompletedCheckpointStore implements CompletedCheckpointStore {
  constructor(
    private readonly deps: StoreDeps,
    private readonly jobId: JobId,
  ) {}

  async add(metadata: CheckpointMetadata, token: FencingToken): Promise<CompletedCheckpoint> {
    const { keys, coordination, writer } = this.deps;
    const { checkpointId } = metadata;
    const job = await coordination.get(keys.job(this.jobId));
    if (job === undefined) throw jobEnded(this.jobId);
    const writeId = writer.newWriteId();
    const bytes = encodeObject(METADATA_OBJECT, metadata);
    const object = await putObject(this.deps, keys.metadataObject(this.jobId, checkpointId, token, writeId), bytes);
    const key = keys.checkpoint(this.jobId, checkpointId);
    const record: CheckpointRecord = {
      writeId,
      checkpointId,
      kind: metadata.kind,
      metadata: { objectKey: object.objectKey, digest: object.digest, bytes: object.bytes },
      ...this.foreign(metadata),
    };
    object.assertFresh();
    const outcome = await writer.commit(token, {
      what: `completing checkpoint ${checkpointId} of job ${this.jobId}`,
      guards: [unchanged(job.key, job.modRevision), absent(key)],
      then: [{ kind: 'put', key, value: encodeRecord(CHECKPOINT_RECORD, record) }],
      isDone: (seen) => hasWriteId(seen.get(key), writeId),
    });
    if (outcome.kind === 'committed') return { metadata, metadataKey: object.objectKey, metadataBytes: bytes.length };

    await deleteObjects(this.deps, 'metadata of a refused checkpoint', [object.objectKey]);
    if (outcome.seen.get(job.key) === undefined) throw jobEnded(this.jobId);
    throw new MillraceError('CONFLICT', `job ${this.jobId} has a completed checkpoint ${checkpointId} already`);
  }

  async listIds(): Promise<readonly { readonly checkpointId: number; readonly metadataKey: string }[]> {
    return (await this.pointers()).map(({ record }) => ({
      checkpointId: record.checkpointId,
      metadataKey: record.metadata.objectKey,
    }));
  }

  async read(checkpointId: number): Promise<CompletedCheckpoint> {
    const entry = await this.deps.coordination.get(this.deps.keys.checkpoint(this.jobId, checkpointId));
    if (entry === undefined) throw new NotFoundError(`job ${this.jobId} has no completed checkpoint ${checkpointId}`);
    const record = decodeRecord(CHECKPOINT_RECORD, entry);
    const metadata = await readMetadata(this.deps, record);
    if (metadata.jobId !== this.jobId || metadata.checkpointId !== checkpointId)
      throw new CorruptError(
        `the metadata of checkpoint ${checkpointId} of job ${this.jobId} is of ${metadata.jobId}/${metadata.checkpointId}`,
      );
    return { metadata, metadataKey: record.metadata.objectKey, metadataBytes: record.metadata.bytes };
  }

  async subsume(retain: number, token: FencingToken): Promise<void> {
    const { keys, coordination, writer } = this.deps;
    const pointers = await this.pointers();
    const oldestKept = pointers.filter(({ record }) => record.kind === 'CHECKPOINT').at(-Math.max(1, retain));
    if (oldestKept === undefined) return;
    const beyond = pointers.filter(({ record }) => record.checkpointId < oldestKept.record.checkpointId);
    if (beyond.length === 0) return;
    const kept = pointers.filter((pointer) => !beyond.includes(pointer));
    // A savepoint is the user's: it leaves the job's list, never the store.
    const savepoints = beyond.filter(({ record }) => record.kind === 'SAVEPOINT');
    const going = beyond.filter(({ record }) => record.kind === 'CHECKPOINT');
    const retained = await listPointers(this.deps, keys.retainedOf(this.jobId));
    const doomed = await objectsOnlyOf(this.deps, this.jobId, going, [...kept, ...savepoints, ...retained]);
    const job = await coordination.get(keys.job(this.jobId));
    if (job === undefined) return; // Ended in the meantime: its clean-up removes them.
    for (const part of chunks(beyond, SUBSUME_CHUNK)) {
      const outcome = await writer.commit(token, {
        what: `subsuming ${part.length} checkpoints of job ${this.jobId}`,
        guards: [
          unchanged(job.key, job.modRevision),
          ...part.map(({ entry }) => unchanged(entry.key, entry.modRevision)),
        ],
        then: part.flatMap((pointer) =>
          pointer.record.kind === 'SAVEPOINT'
            ? retainOps(this.deps, this.jobId, pointer)
            : [{ kind: 'delete' as const, key: pointer.entry.key }],
        ),
        isDone: (seen) => part.every(({ entry }) => seen.get(entry.key) === undefined),
      });
      // The job has ended, or another call subsumes the same: either leaves nothing for this one.
      if (outcome.kind === 'refused') return;
    }
    if (doomed !== undefined) await deleteObjects(this.deps, 'subsumed checkpoints', doomed);
  }

  async discard(objectKeys: readonly string[]): Promise<void> {
    // Only what is this job's: an acknowledgement must not be a way to delete what others own.
    const prefix = this.deps.keys.jobObjects(this.jobId);
    const own = objectKeys.filter((key) => key.startsWith(prefix));
    if (own.length < objectKeys.length)
      this.deps.log.warn(
        { jobId: this.jobId, objects: objectKeys.length - own.length },
        'foreign objects not discarded',
      );
    await deleteObjects(this.deps, 'objects of a checkpoint that did not complete', own);
  }

  private pointers(): Promise<readonly CheckpointPointer[]> {
    return listPointers(this.deps, this.deps.keys.checkpoints(this.jobId));
  }

  /** Whose state, besides the job's own, the checkpoint needs. */
  private foreign(metadata: CheckpointMetadata): { readonly foreign?: string[] } {
    const own = this.deps.keys.jobObjects(this.jobId);
    const prefixes = new Set<string>();
    for (const key of stateKeysOf(metadata)) {
      if (key.startsWith(own)) continue;
      const prefix = this.deps.keys.jobPrefixOfObject(key);
      if (prefix !== undefined) prefixes.add(prefix);
    }
    if (prefixes.size === 0) return {};
    return { foreign: prefixes.size > FOREIGN_MAX ? [''] : [...prefixes] };
  }
}

function jobEnded(jobId: JobId): NotFoundError {
  return new NotFoundError(`job ${jobId} is not running: it has ended or never was`);
}
