import type { CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import { isJobId, type JobId } from '../../src/kernel/ids.ts';
import { asError, isMillraceError } from '../../src/kernel/errors.ts';
import type { Entry } from '../coordination/coordination.ts';
import { decodeMetadata, readMetadata, stateKeysOf } from './checkpoint-pointers.ts';
import { decodeRecord } from './record-codec.ts';
import { CHECKPOINT_RECORD, JAR_RECORD, JOB_RECORD, RESULT_RECORD } from './records.ts';
import type { StoreDeps } from './store-deps.ts';

/** What may not be swept, and how long objects of running jobs may be on their way to being pointed to. */
export interface References {
  readonly keys: ReadonlySet<string>;
  /** Everything under these is kept: something that points there could not be read. */
  readonly protectedPrefixes: ReadonlySet<string>;
  /** By object prefix of each running job: its checkpoint timeout. */
  readonly checkpointTimeouts: ReadonlyMap<string, number>;
}

/** The state that each metadata object names: they never change, so two looks need to read them once. */
export type MetadataCache = Map<string, ReadonlySet<string>>;

/**
 * All that anything in coordination points to, directly or through checkpoint metadata. What cannot
 * be read protects all that it could have pointed to: on doubt nothing is deleted. Rejects only when
 * coordination or the object store is away.
 */
export async function collectReferences(deps: StoreDeps, metadata: MetadataCache = new Map()): Promise<References> {
  const collector = new Collector(deps, metadata);
  const { keys, coordination } = deps;
  // The order of these reads matters. Jars before jobs: a job can only be promised while its jar
  // exists, so a bundle whose jar is not seen is in a job that is seen, or in none for ever.
  // Checkpoints before retained: pointers move that way, so none is missed between the two.
  const jars = (await coordination.list(keys.jars)).entries;
  const jobs = (await coordination.list(keys.jobs)).entries;
  const checkpoints = (await coordination.list(keys.allCheckpoints)).entries;
  const retained = (await coordination.list(keys.allRetained)).entries;
  const results = (await coordination.list(keys.results)).entries;
  for (const entry of jars) collector.jar(entry);
  for (const entry of jobs) await collector.job(entry);
  for (const entry of checkpoints) await collector.checkpoint(entry, keys.allCheckpoints);
  for (const entry of retained) await collector.checkpoint(entry, keys.allRetained);
  for (const entry of results) collector.result(entry);
  return collector;
}

class Collector implements References {
  readonly keys = new Set<string>();
  readonly protectedPrefixes = new Set<string>();
  readonly checkpointTimeouts = new Map<string, number>();
  private readonly readAlready = new Set<string>();

  constructor(
    private readonly deps: StoreDeps,
    private readonly metadata: MetadataCache,
  ) {}

  async job(entry: Entry): Promise<void> {
    const jobId = entry.key.slice(this.deps.keys.jobs.length);
    await this.guarded(entry, jobId, async () => {
      const record = decodeRecord(JOB_RECORD, entry);
      this.keys.add(record.graph.objectKey);
      this.checkpointTimeouts.set(this.deps.keys.jobObjects(record.jobId), record.checkpointTimeoutMs);
      if (record.bundleKey !== undefined) this.keys.add(record.bundleKey);
      if (record.restoreKey !== undefined) await this.external(record.restoreKey);
    });
  }

  async checkpoint(entry: Entry, prefix: string): Promise<void> {
    const jobId = entry.key.slice(prefix.length).split('/')[0] ?? '';
    await this.guarded(entry, jobId, async () => {
      const record = decodeRecord(CHECKPOINT_RECORD, entry);
      this.keys.add(record.metadata.objectKey);
      if (this.readAlready.has(record.metadata.objectKey)) return;
      this.readAlready.add(record.metadata.objectKey);
      try {
        await this.state(record.metadata.objectKey, () => readMetadata(this.deps, record));
      } catch (error) {
        for (const foreign of record.foreign ?? []) this.protectedPrefixes.add(foreign);
        const { objectKey: metadataKey } = record.metadata;
        if (metadataKey.startsWith(this.deps.keys.allSavepoints))
          this.protectedPrefixes.add(metadataKey.slice(0, metadataKey.lastIndexOf('/') + 1));
        throw error;
      }
    });
  }

  result(entry: Entry): void {
    const jobId = entry.key.slice(this.deps.keys.results.length);
    try {
      const record = decodeRecord(RESULT_RECORD, entry);
      this.keys.add(record.details.objectKey);
      // A dirty result's clean-up reads what it removes: it is its owner until it is done.
      if (record.dirty) this.protectedPrefixes.add(this.deps.keys.jobObjects(record.jobId));
    } catch (error) {
      this.protect(entry, jobId, error);
    }
  }

  jar(entry: Entry): void {
    try {
      this.keys.add(decodeRecord(JAR_RECORD, entry).bundle.objectKey);
    } catch (error) {
      this.deps.log.error({ err: asError(error), key: entry.key }, 'jar record unreadable, its objects are kept');
      this.protectedPrefixes.add(`${this.deps.keys.allJarObjects}${entry.key.slice(this.deps.keys.jars.length)}/`);
    }
  }

  /** A checkpoint that a user named for a job to start from; it may be of this cluster. */
  private async external(metadataKey: string): Promise<void> {
    this.keys.add(metadataKey);
    if (this.readAlready.has(metadataKey)) return;
    this.readAlready.add(metadataKey);
    const owner = this.deps.keys.jobPrefixOfObject(metadataKey);
    try {
      await this.state(metadataKey, async () => decodeMetadata(metadataKey, await this.deps.objects.get(metadataKey)));
    } catch (error) {
      if (isAway(error)) throw error;
      // Gone or damaged: the job cannot start from it, whatever is kept.
      if (owner !== undefined && !isMillraceError(error, 'NOT_FOUND')) this.protectedPrefixes.add(owner);
    }
  }

  private async state(metadataKey: string, read: () => Promise<CheckpointMetadata>): Promise<void> {
    const state = this.metadata.get(metadataKey) ?? stateKeysOf(await read());
    this.metadata.set(metadataKey, state);
    for (const key of state) this.keys.add(key);
  }

  private async guarded(entry: Entry, jobId: string, read: () => Promise<void>): Promise<void> {
    try {
      await read();
    } catch (error) {
      if (isAway(error)) throw error;
      this.protect(entry, jobId, error);
      // An unreadable job record may hide any bundle; without its jar only the job still needs it.
      if (entry.key.startsWith(this.deps.keys.jobs)) this.protectedPrefixes.add(this.deps.keys.allJarObjects);
    }
  }

  private protect(entry: Entry, jobId: string, error: unknown): void {
    const { keys } = this.deps;
    const isPointer = entry.key.startsWith(keys.allCheckpoints) || entry.key.startsWith(keys.allRetained);
    // A pointer that cannot be read at all may be any savepoint's.
    if (isPointer && !isReadable(entry)) this.protectedPrefixes.add(keys.allSavepoints);
    this.deps.log.error({ err: asError(error), key: entry.key }, 'record unreadable, all objects of its job are kept');
    this.protectedPrefixes.add(
      isJobId(jobId) ? this.deps.keys.jobObjects(jobId as JobId) : this.deps.keys.allJobObjects,
    );
  }
}

function isReadable(entry: Entry): boolean {
  try {
    decodeRecord(CHECKPOINT_RECORD, entry);
    return true;
  } catch {
    return false; // the reason was logged where it mattered
  }
}

function isAway(error: unknown): boolean {
  return !(
    isMillraceError(error, 'CORRUPT') ||
    isMillraceError(error, 'UNSUPPORTED_VERSION') ||
    isMillraceError(error, 'NOT_FOUND')
  );
}
