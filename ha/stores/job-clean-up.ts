import { asError } from '../../src/kernel/errors.ts';
import type { FencingToken, JobId } from '../../src/kernel/ids.ts';
import type { Entry, Op } from '../coordination/coordination.ts';
import { type CheckpointPointer, listPointers, objectsOnlyOf, retainOps } from './checkpoint-pointers.ts';
import { chunks, unchanged } from './fenced-writer.ts';
import type { ResultRecord } from './records.ts';
import { deleteObjects, type StoreDeps } from './store-deps.ts';

export interface CleanUp {
  readonly jobId: JobId;
  readonly record: ResultRecord;
  /** The dirty result: while it is unchanged the clean-up has not been finished by anybody. */
  readonly entry: Entry;
  readonly token: FencingToken;
}

/** Up to two operations each, beside the guards, under the store's limit of 128. */
const POINTER_CHUNK = 40;
const LISTED_MAX = 5_000;

/**
 * Removes what an ended job left: pointers first, objects second, each step repeatable. The caller
 * marks the result clean afterwards. Savepoints, and all checkpoints when the result says so, move
 * to `retained/` instead; but none that came behind the savepoint with which the job stopped: it says the same as that,
 * and refers to objects of it, which are the user's to delete.
 */
export async function cleanUpJob(deps: StoreDeps, cleanUp: CleanUp): Promise<void> {
  const { jobId, record } = cleanUp;
  const pointers = await listPointers(deps, deps.keys.checkpoints(jobId));
  const stop =
    pointers.find((pointer) => pointer.record.stop !== undefined)?.record.checkpointId ?? Number.POSITIVE_INFINITY;
  const staying = pointers.filter(
    ({ record: { kind, checkpointId } }) => kind === 'SAVEPOINT' || (record.retainCheckpoints && checkpointId < stop),
  );
  const going = pointers.filter((pointer) => !staying.includes(pointer));
  const alreadyRetained = await listPointers(deps, deps.keys.retainedOf(jobId));
  // Read before the pointers go: afterwards nobody knows which objects they stood for.
  const doomed = await objectsOnlyOf(deps, jobId, going, [...staying, ...alreadyRetained]);

  // In this order: while some are to go, the savepoint that says so is still listed, should this be done again.
  await commitInChunks(deps, cleanUp, 'removing checkpoints', going, ({ entry }) => [
    { kind: 'delete', key: entry.key },
  ]);
  await commitInChunks(deps, cleanUp, 'retaining checkpoints', staying, (one) => retainOps(deps, jobId, one));
  await removeCounter(deps, cleanUp);

  if (doomed !== undefined) await deleteObjects(deps, 'checkpoints of an ended job', doomed);
  if (record.graphKey !== undefined) await deleteObjects(deps, 'graph of an ended job', [record.graphKey]);
  // With nothing retained, whatever else lies there (aborted checkpoints) is nobody's.
  if (staying.length === 0 && alreadyRetained.length === 0) await removeLeftovers(deps, cleanUp);
}

async function commitInChunks(
  deps: StoreDeps,
  { jobId, entry: result, token }: CleanUp,
  what: string,
  pointers: readonly CheckpointPointer[],
  opsOf: (pointer: CheckpointPointer) => readonly Op[],
): Promise<void> {
  for (const part of chunks(pointers, POINTER_CHUNK)) {
    // Refused: another clean-up of the same job has done it (only a leader, so this process, writes).
    await deps.writer.commit(token, {
      what: `${what} of job ${jobId}`,
      guards: [
        unchanged(result.key, result.modRevision),
        ...part.map(({ entry }) => unchanged(entry.key, entry.modRevision)),
      ],
      then: part.flatMap(opsOf),
      isDone: (seen) => part.every(({ entry }) => seen.get(entry.key) === undefined),
    });
  }
}

async function removeCounter(deps: StoreDeps, { jobId, entry: result, token }: CleanUp): Promise<void> {
  const counter = await deps.coordination.get(deps.keys.counter(jobId));
  if (counter === undefined) return;
  await deps.writer.commit(token, {
    what: `removing the checkpoint counter of job ${jobId}`,
    guards: [unchanged(result.key, result.modRevision), unchanged(counter.key, counter.modRevision)],
    then: [{ kind: 'delete', key: counter.key }],
    isDone: (seen) => seen.get(counter.key) === undefined,
  });
}

/**
 * The order is what makes it safe: first list, then confirm that the result is still dirty and ours
 * to clean up, then delete. While it is dirty the job id has no second life, so everything listed
 * before is of the life that has ended, however late the deletion arrives.
 */
async function removeLeftovers(deps: StoreDeps, { jobId, record, entry, token }: CleanUp): Promise<void> {
  for (let listed: string[] = []; ; listed = []) {
    try {
      for await (const { key } of deps.objects.list(deps.keys.jobObjects(jobId))) {
        if (key !== record.details.objectKey) listed.push(key);
        if (listed.length >= LISTED_MAX) break;
      }
    } catch (error) {
      deps.log.warn({ err: asError(error), jobId }, 'leftovers of an ended job not listed, left to the sweeper');
      return;
    }
    if (listed.length === 0) return;
    if (!(await deps.writer.confirm(token, [unchanged(entry.key, entry.modRevision)]))) return;
    await deleteObjects(deps, 'leftovers of an ended job', listed);
    if (listed.length < LISTED_MAX) return;
  }
}
