import type { SavepointStore } from '../../src/contracts/operations.ts';
import { asError, InvalidArgumentError, MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import { type FencingToken, isJobId, type JobId } from '../../src/kernel/ids.ts';
import { type CheckpointPointer, listPointers } from './checkpoint-pointers.ts';
import { unchanged } from './fenced-writer.ts';
import { decodeRecord } from './record-codec.ts';
import { JOB_RECORD } from './records.ts';
import { SavepointPaths } from './savepoint-paths.ts';
import { deleteObjects, type StoreDeps } from './store-deps.ts';

/** Savepoints of all jobs of a cluster. */
export class HaSavepointStore implements SavepointStore {
  private readonly paths: SavepointPaths;

  constructor(private readonly deps: StoreDeps) {
    this.paths = new SavepointPaths(deps.keys, deps.objects.description);
  }

  locate(targetDirectory: string | undefined, savepointName: string): string {
    return this.paths.locate(targetDirectory, savepointName);
  }

  resolve(path: string): string {
    return this.paths.resolve(path);
  }

  urlOf(objectKeyOrPrefix: string): string {
    return this.paths.urlOf(objectKeyOrPrefix);
  }

  async dispose(metadataKey: string, token: FencingToken): Promise<void> {
    const { keys, writer } = this.deps;
    const pointer = await findPointer(this.deps, metadataKey);
    const url = this.urlOf(metadataKey);
    if (pointer === undefined) throw new NotFoundError(`there is no savepoint at ${url}`);
    const { entry, record } = pointer;
    const owner = ownerOf(this.deps, pointer);
    if (owner !== undefined && record.kind === 'CHECKPOINT')
      throw new InvalidArgumentError(`${url} belongs to job ${owner}, which removes it itself`);
    if (owner !== undefined && record.stop !== undefined)
      throw new MillraceError('CONFLICT', `job ${owner} is still stopping with the savepoint at ${url}`);
    const needed = await this.neededBy(metadataKey);
    if (needed !== undefined)
      throw new MillraceError('CONFLICT', `job ${needed} starts from ${url} and has no checkpoint of its own yet`);
    const outcome = await writer.commit(token, {
      what: `disposing of ${metadataKey}`,
      guards: [unchanged(entry.key, entry.modRevision)],
      then: [{ kind: 'delete', key: entry.key }],
      isDone: (seen) => seen.get(entry.key) === undefined,
    });
    if (outcome.kind === 'refused')
      throw new MillraceError('CONFLICT', `the savepoint at ${url} was moved meanwhile`, { hint: 'Try again.' });
    // A savepoint has its folder for itself. State of a retained checkpoint may be shared: the sweeper knows.
    if (metadataKey.startsWith(keys.allSavepoints)) await deleteFolder(this.deps, metadataKey);
    else await deleteObjects(this.deps, 'metadata of a disposed checkpoint', [metadataKey]);
  }

  /** A running job that would restart from it. */
  private async neededBy(metadataKey: string): Promise<JobId | undefined> {
    const { keys, coordination } = this.deps;
    for (const entry of (await coordination.list(keys.jobs)).entries) {
      const { jobId, restoreKey } = decodeRecord(JOB_RECORD, entry);
      if (restoreKey !== metadataKey) continue;
      const own = await listPointers(this.deps, keys.checkpoints(jobId));
      if (!own.some(({ record }) => record.kind === 'CHECKPOINT')) return jobId;
    }
    return undefined;
  }
}

/** The pointer to a metadata object, of whatever job, running or ended. */
export async function findPointer(deps: StoreDeps, metadataKey: string): Promise<CheckpointPointer | undefined> {
  // In this order, as pointers move from the first to the second when a job ends.
  for (const prefix of [deps.keys.allCheckpoints, deps.keys.allRetained]) {
    const found = (await listPointers(deps, prefix)).find(({ record }) => record.metadata.objectKey === metadataKey);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The job in whose list of checkpoints it is; undefined: it is retained, and nobody's. */
export function ownerOf({ keys }: StoreDeps, { entry }: CheckpointPointer): JobId | undefined {
  if (!entry.key.startsWith(keys.allCheckpoints)) return undefined;
  const jobId = entry.key.slice(keys.allCheckpoints.length).split('/')[0] ?? '';
  return isJobId(jobId) ? (jobId as JobId) : undefined;
}

/** All that lies beside the metadata of a savepoint that nothing points to any more. */
export async function deleteFolder(deps: StoreDeps, metadataKey: string): Promise<void> {
  const folder = metadataKey.slice(0, metadataKey.lastIndexOf('/') + 1);
  const found: string[] = [];
  try {
    for await (const { key } of deps.objects.list(folder)) found.push(key);
  } catch (error) {
    deps.log.warn({ err: asError(error), folder }, 'savepoint not listed, left to the sweeper');
    return;
  }
  // The metadata last: a savepoint without it would be harder to tell from an unfinished one.
  await deleteObjects(deps, 'a savepoint', [...found.filter((key) => key !== metadataKey), metadataKey]);
}
