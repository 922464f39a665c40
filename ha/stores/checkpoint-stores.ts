import type { CheckpointMetadata, CompletedCheckpoint } from '../../src/contracts/checkpoint.ts';
import type {
  CheckpointIdCounter,
  CheckpointStores,
  Completion,
  CompletedCheckpointStore,
  ListedCheckpoint,
} from '../../src/checkpoint/ports.ts';
import { type OperationStore, succeeded } from '../../src/contracts/operations.ts';
import {
  asError,
  CorruptError,
  InvalidArgumentError,
  isMillraceError,
  MillraceError,
  NotFoundError,
} from '../../src/kernel/errors.ts';
import type { FencingToken, JobId } from '../../src/kernel/ids.ts';
import type { Guard, Op } from '../coordination/coordination.ts';
import { lendersOf } from './borrowed-state.ts';
import { HaCheckpointIdCounter } from './checkpoint-id-counter.ts';
import {
  type CheckpointPointer,
  decodeMetadata,
  listPointers,
  NamedState,
  objectsOnlyOf,
  readMetadata,
  retainOps,
  stateKeysOf,
} from './checkpoint-pointers.ts';
import { absent, chunks, type FencedOutcome, unchanged } from './fenced-writer.ts';
import { hasWriteId } from './job-graph-store.ts';
import { encodeObject } from './object-codec.ts';
import { asOperation, finishOps, HaOperationStore } from './operation-store.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { CANCEL_RECORD, CHECKPOINT_RECORD, type CheckpointRecord, COUNTER_RECORD, METADATA_OBJECT } from './records.ts';
import { METADATA_NAME } from './savepoint-paths.ts';
import { findPointer, ownerOf } from './savepoint-store.ts';
import { deleteObjects, putObject, type StoreDeps } from './store-deps.ts';

/** Two operations each, beside the guards, under the store's limit of 128. */
const SUBSUME_CHUNK = 40;
/** More foreign prefixes than this are recorded as "everything". */
const FOREIGN_MAX = 16;
const COPY_BYTES = 4 * 1024 * 1024;

export class HaCheckpointStores implements CheckpointStores {
  readonly operations: OperationStore;

  constructor(private readonly deps: StoreDeps) {
    this.operations = new HaOperationStore(deps);
  }

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
 *   K4. A checkpoint refers to an object that another one wrote only while a pointer that names it is there,
 *       in the transaction that completes it. So what no pointer names will never be named again, whoever
 *       leads: objects are counted by pointers alone, and one that has lost its last may be deleted late.
 */
class HaCompletedCheckpointStore implements CompletedCheckpointStore {
  private readonly named = new NamedState();

  constructor(
    private readonly deps: StoreDeps,
    private readonly jobId: JobId,
  ) {}

  async add(
    metadata: CheckpointMetadata,
    token: FencingToken,
    completion: Completion = {},
  ): Promise<CompletedCheckpoint> {
    const { keys, coordination, writer } = this.deps;
    const { checkpointId } = metadata;
    const job = await coordination.get(keys.job(this.jobId));
    if (job === undefined) throw jobEnded(this.jobId);
    const writeId = writer.newWriteId();
    const extra = await this.completionOps(completion, checkpointId, writeId);
    const bytes = encodeObject(METADATA_OBJECT, metadata);
    const { location } = completion;
    const objectKey =
      location === undefined
        ? keys.metadataObject(this.jobId, checkpointId, token, writeId)
        : `${location}${METADATA_NAME}`;
    const object = await putObject(this.deps, objectKey, bytes);
    const key = keys.checkpoint(this.jobId, checkpointId);
    const record: CheckpointRecord = {
      writeId,
      checkpointId,
      kind: metadata.kind,
      metadata: { objectKey: object.objectKey, digest: object.digest, bytes: object.bytes },
      ...this.foreign(metadata),
      ...(completion.stop === undefined ? {} : { stop: completion.stop }),
    };
    const refused = async () => deleteObjects(this.deps, 'metadata of a refused checkpoint', [object.objectKey]);
    let outcome: FencedOutcome;
    for (;;) {
      const lenders = await this.lenders(metadata, refused); // K4
      object.assertFresh();
      outcome = await writer.commit(token, {
        what: `completing checkpoint ${checkpointId} of job ${this.jobId}`,
        guards: [
          unchanged(job.key, job.modRevision),
          absent(key),
          ...extra.guards,
          ...lenders.map(({ entry }) => unchanged(entry.key, entry.modRevision)),
        ],
        then: [{ kind: 'put', key, value: encodeRecord(CHECKPOINT_RECORD, record) }, ...extra.then],
        isDone: (seen) => hasWriteId(seen.get(key), writeId),
      });
      if (outcome.kind === 'committed') {
        this.named.remember(object.objectKey, stateKeysOf(metadata));
        return { metadata, metadataKey: object.objectKey, metadataBytes: bytes.length };
      }
      // A lender went meanwhile; another one may do.
      const { seen } = outcome;
      if (!lenders.some(({ entry }) => seen.get(entry.key)?.modRevision !== entry.modRevision)) break;
      if (seen.get(job.key) === undefined || seen.get(key) !== undefined) break;
    }
    await refused();
    if (outcome.seen.get(job.key) === undefined) throw jobEnded(this.jobId);
    if (outcome.seen.get(key) !== undefined)
      throw new MillraceError('CONFLICT', `job ${this.jobId} has a completed checkpoint ${checkpointId} already`);
    throw new InvalidArgumentError(
      `operation ${completion.triggerId} of job ${this.jobId} has ended without its checkpoint`,
    );
  }

  async listIds(): Promise<readonly ListedCheckpoint[]> {
    return (await this.pointers()).map(({ record }) => ({
      checkpointId: record.checkpointId,
      metadataKey: record.metadata.objectKey,
      kind: record.kind,
      ...(record.stop === undefined ? {} : { stop: record.stop }),
    }));
  }

  async read(checkpointId: number): Promise<CompletedCheckpoint> {
    const entry = await this.deps.coordination.get(this.deps.keys.checkpoint(this.jobId, checkpointId));
    if (entry === undefined) throw new NotFoundError(`job ${this.jobId} has no completed checkpoint ${checkpointId}`);
    const record = decodeRecord(CHECKPOINT_RECORD, entry);
    const metadata = await readMetadata(this.deps, record);
    const ours = metadata.jobId === this.jobId || record.claimed === true;
    if (!ours || metadata.checkpointId !== checkpointId)
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
    // One with which the job has stopped says so until the job has ended.
    const beyond = pointers.filter(
      ({ record }) => record.checkpointId < oldestKept.record.checkpointId && record.stop === undefined,
    );
    if (beyond.length === 0) return;
    // A savepoint is the user's: it leaves the job's list, never the store.
    const going = beyond.filter(({ record }) => record.kind === 'CHECKPOINT');
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
    await this.removeObjectsOf(going);
  }

  /** Of checkpoints whose pointers have gone: what nothing names any more. */
  private async removeObjectsOf(gone: readonly CheckpointPointer[]): Promise<void> {
    let kept: readonly CheckpointPointer[];
    try {
      // Listed now: a checkpoint that completed meanwhile may name what it borrowed of these (K4). In this
      // order, because pointers move that way.
      const own = await this.pointers();
      kept = [...own, ...(await listPointers(this.deps, this.deps.keys.retainedOf(this.jobId)))];
    } catch (error) {
      this.deps.log.warn({ err: asError(error), jobId: this.jobId }, 'subsumed checkpoints left to the sweeper');
      return;
    }
    const doomed = await objectsOnlyOf(this.deps, this.jobId, gone, kept, this.named);
    if (doomed !== undefined) await deleteObjects(this.deps, 'subsumed checkpoints', doomed);
  }

  private async lenders(
    metadata: CheckpointMetadata,
    refused: () => Promise<void>,
  ): Promise<readonly CheckpointPointer[]> {
    try {
      return await lendersOf(this.deps, this.jobId, metadata, this.named);
    } catch (error) {
      if (isMillraceError(error, 'INVALID_ARGUMENT')) await refused();
      throw error;
    }
  }

  async claim(metadataKey: string, token: FencingToken): Promise<number> {
    const { keys, coordination, writer } = this.deps;
    const found = await findPointer(this.deps, metadataKey);
    if (found === undefined)
      throw new NotFoundError(`there is no savepoint or retained checkpoint of this cluster at ${metadataKey}`, {
        hint: 'What another cluster wrote can be restored without taking it over: claim mode NO_CLAIM.',
      });
    const { entry, record } = found;
    const { checkpointId } = record;
    const owner = ownerOf(this.deps, found);
    if (owner === this.jobId) return checkpointId;
    if (owner !== undefined && (record.kind === 'CHECKPOINT' || record.stop !== undefined))
      throw new MillraceError('CONFLICT', `${metadataKey} belongs to job ${owner}, which is still running`, {
        hint: 'Use claim mode NO_CLAIM, or wait for that job to end.',
      });
    const job = await coordination.get(keys.job(this.jobId));
    if (job === undefined) throw jobEnded(this.jobId);
    const counter = await coordination.get(keys.counter(this.jobId));
    const last = Math.max(checkpointId, counter === undefined ? 0 : decodeRecord(COUNTER_RECORD, counter).last);
    const writeId = writer.newWriteId();
    const key = keys.checkpoint(this.jobId, checkpointId);
    const { stop: _, ...kept } = record;
    const claimed: CheckpointRecord = { ...kept, writeId, kind: 'CHECKPOINT', claimed: true };
    const outcome = await writer.commit(token, {
      what: `claiming checkpoint ${checkpointId} for job ${this.jobId}`,
      guards: [
        unchanged(job.key, job.modRevision),
        unchanged(entry.key, entry.modRevision),
        unchanged(keys.counter(this.jobId), counter?.modRevision ?? 0n),
        absent(key),
      ],
      then: [
        { kind: 'delete', key: entry.key },
        { kind: 'put', key, value: encodeRecord(CHECKPOINT_RECORD, claimed) },
        { kind: 'put', key: keys.counter(this.jobId), value: encodeRecord(COUNTER_RECORD, { writeId, last }) },
      ],
      isDone: (seen) => hasWriteId(seen.get(key), writeId),
    });
    if (outcome.kind === 'committed') return checkpointId;
    if (outcome.seen.get(job.key) === undefined) throw jobEnded(this.jobId);
    throw new MillraceError('UNAVAILABLE', `${metadataKey} was moved while job ${this.jobId} claimed it`);
  }

  async copy(objectKey: string, targetKey: string, signal: AbortSignal): Promise<void> {
    const { objects } = this.deps;
    const upload = await objects.upload(targetKey);
    try {
      for (let offset = 0; ; ) {
        const part = await objects.getRange(objectKey, offset, COPY_BYTES, signal);
        if (part.length > 0) await upload.write(part);
        offset += part.length;
        if (part.length < COPY_BYTES) break;
      }
      await upload.complete();
    } catch (error) {
      await upload.abort();
      throw error;
    }
  }

  async discard(objectKeys: readonly string[]): Promise<void> {
    // Only what is this job's: an acknowledgement must not be a way to delete what others own.
    const { keys } = this.deps;
    const prefixes = [keys.jobObjects(this.jobId), keys.allSavepoints];
    const own = objectKeys.filter((key) => prefixes.some((prefix) => key.startsWith(prefix)));
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

  /** What is written together with the pointer. */
  private async completionOps(
    { triggerId, cancelJob, location }: Completion,
    checkpointId: number,
    writeId: string,
  ): Promise<{ readonly guards: readonly Guard[]; readonly then: readonly Op[] }> {
    const { keys, coordination, clock } = this.deps;
    const guards: Guard[] = [];
    const then: Op[] = [];
    if (triggerId !== undefined) {
      const entry = await coordination.get(keys.operation(this.jobId, triggerId));
      if (entry === undefined || asOperation(entry).result !== undefined)
        throw new InvalidArgumentError(`operation ${triggerId} of job ${this.jobId} is not in progress`);
      const { guard, op } = finishOps(entry, succeeded(checkpointId, location), writeId);
      guards.push(guard);
      then.push(op);
    }
    if (cancelJob === true && (await coordination.get(keys.cancel(this.jobId))) === undefined) {
      const record = { writeId, requestedWallMs: clock.wallMs() };
      then.push({ kind: 'put', key: keys.cancel(this.jobId), value: encodeRecord(CANCEL_RECORD, record) });
    }
    return { guards, then };
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
