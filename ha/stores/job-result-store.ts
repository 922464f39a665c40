import type { JobDetailsView, JobOverviewView } from '../../src/contracts/views.ts';
import type { JobResult, JobResultStore, ListedResult } from '../../src/dispatcher/ports.ts';
import { assert } from '../../src/kernel/assert.ts';
import { asError, type ErrorInfo, isMillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import type { FencingToken, JobId } from '../../src/kernel/ids.ts';
import type { Entry, Op } from '../coordination/coordination.ts';
import { absent, chunks, unchanged } from './fenced-writer.ts';
import { cleanUpJob } from './job-clean-up.ts';
import { hasWriteId } from './job-graph-store.ts';
import { decodeObject, encodeObject, readVerified } from './object-codec.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { DETAILS_OBJECT, JOB_RECORD, type JobRecord, RESULT_RECORD, type ResultRecord } from './records.ts';
import { deleteObjects, putObject, type StoreDeps } from './store-deps.ts';
import { NAME_BYTES_MAX, truncateText } from './truncate-text.ts';

const ERROR_MESSAGE_BYTES_MAX = 800;
const ERROR_STACK_BYTES_MAX = 800;
const RECENT_DETAILS_MAX = 16;
/** Each expired result takes up to three operations. */
const EXPIRE_CHUNK = 30;

/**
 * How jobs ended.
 *
 * Invariants:
 *   R1. A job's result appears in the transaction that removes the job: it is never in neither place.
 *   R2. A result is written once; after that only `dirty` changes, once, to false.
 *   R3. Clean-up happens only behind a result, so nothing of a job that may still run is removed.
 */
export class HaJobResultStore implements JobResultStore {
  /** By object key, and objects never change: a dashboard that shows an ended job asks every second. */
  private readonly recent = new Map<string, JobDetailsView>();

  constructor(private readonly deps: StoreDeps) {}

  async complete(result: JobResult, details: JobDetailsView, token: FencingToken): Promise<void> {
    const { keys, coordination, writer } = this.deps;
    const { jobId } = result;
    const [jobKey, resultKey] = [keys.job(jobId), keys.result(jobId)];
    const job = await coordination.get(jobKey);
    if (job === undefined) {
      if ((await coordination.get(resultKey)) !== undefined) return;
      throw new NotFoundError(`job ${jobId} is not stored, so it cannot end`);
    }
    const writeId = writer.newWriteId();
    const bytes = encodeObject(DETAILS_OBJECT, details);
    const object = await putObject(this.deps, keys.detailsObject(jobId, token, writeId), bytes);
    object.assertFresh();
    const record = resultRecord(result, details, this.readJob(job), writeId, {
      objectKey: object.objectKey,
      digest: object.digest,
      bytes: object.bytes,
    });
    const outcome = await writer.commit(token, {
      what: `ending job ${jobId} as ${result.status}`,
      guards: [unchanged(jobKey, job.modRevision), absent(resultKey)],
      then: [
        { kind: 'put', key: resultKey, value: encodeRecord(RESULT_RECORD, record) },
        { kind: 'delete', key: jobKey },
        { kind: 'delete', key: keys.cancel(jobId) },
      ],
      isDone: (seen) => hasWriteId(seen.get(resultKey), writeId),
    });
    if (outcome.kind === 'committed') return;
    await deleteObjects(this.deps, 'details of a job that has a result', [object.objectKey]);
    assert(outcome.seen.get(resultKey) !== undefined, 'R1: a job left without a result');
  }

  async get(jobId: JobId): Promise<JobResult | undefined> {
    const entry = await this.deps.coordination.get(this.deps.keys.result(jobId));
    return entry === undefined ? undefined : asResult(decodeRecord(RESULT_RECORD, entry));
  }

  async details(jobId: JobId): Promise<JobDetailsView | undefined> {
    const entry = await this.deps.coordination.get(this.deps.keys.result(jobId));
    if (entry === undefined) return undefined;
    const pointer = decodeRecord(RESULT_RECORD, entry).details;
    const known = this.recent.get(pointer.objectKey);
    if (known !== undefined) return known;
    try {
      const details = decodeObject(DETAILS_OBJECT, pointer.objectKey, await readVerified(this.deps.objects, pointer));
      this.remember(pointer.objectKey, details);
      return details;
    } catch (error) {
      const damaged = isMillraceError(error, 'CORRUPT') || isMillraceError(error, 'UNSUPPORTED_VERSION');
      if (!damaged) throw error;
      this.deps.log.warn({ err: asError(error), jobId }, 'details of an ended job unreadable');
      return undefined;
    }
  }

  async list(): Promise<readonly ListedResult[]> {
    const out = (await this.records()).map(({ record }) => ({
      ...asResult(record),
      dirty: record.dirty,
      overview: overview(record),
    }));
    return out.sort((a, b) => b.endedWallMs - a.endedWallMs || (a.jobId < b.jobId ? -1 : 1));
  }

  async cleanUp(jobId: JobId, token: FencingToken): Promise<void> {
    const { keys, coordination, writer } = this.deps;
    const entry = await coordination.get(keys.result(jobId));
    if (entry === undefined) throw new NotFoundError(`job ${jobId} has no result, so nothing may be cleaned up`);
    const record = decodeRecord(RESULT_RECORD, entry);
    if (!record.dirty) return;
    await cleanUpJob(this.deps, { jobId, record, entry, token });
    const isClean = (seen: Entry | undefined) => seen === undefined || !decodeRecord(RESULT_RECORD, seen).dirty;
    const outcome = await writer.commit(token, {
      what: `marking the result of job ${jobId} clean`,
      guards: [unchanged(entry.key, entry.modRevision)],
      then: [{ kind: 'put', key: entry.key, value: encodeRecord(RESULT_RECORD, { ...record, dirty: false }) }],
      isDone: (seen) => isClean(seen.get(entry.key)),
    });
    // Two calls at once end the same way.
    if (outcome.kind === 'refused') assert(isClean(outcome.seen.get(entry.key)), 'R2: a result changed while dirty');
  }

  async expire(keep: number, token: FencingToken): Promise<number> {
    const { keys, writer } = this.deps;
    const clean = (await this.records()).filter(({ record }) => !record.dirty);
    clean.sort((a, b) => b.record.endedWallMs - a.record.endedWallMs);
    let expired = 0;
    for (const part of chunks(clean.slice(keep), EXPIRE_CHUNK)) {
      const then = part.flatMap(({ entry, record }): Op[] => [
        { kind: 'delete', key: entry.key },
        { kind: 'deletePrefix', prefix: keys.operationsOf(record.jobId) },
        ...(record.idempotencyHash === undefined
          ? []
          : [{ kind: 'delete', key: keys.idempotencyByHash(record.idempotencyHash) } as const]),
      ]);
      const outcome = await writer.commit(token, {
        what: `forgetting ${part.length} results`,
        guards: part.map(({ entry }) => unchanged(entry.key, entry.modRevision)),
        then,
        isDone: (seen) => part.every(({ entry }) => seen.get(entry.key) === undefined),
      });
      // Somebody else expired some of them at the same time; the next call sees what is left.
      if (outcome.kind === 'refused') break;
      await deleteObjects(
        this.deps,
        'details of forgotten results',
        part.map(({ record }) => record.details.objectKey),
      );
      expired += part.length;
    }
    return expired;
  }

  private remember(objectKey: string, details: JobDetailsView): void {
    this.recent.set(objectKey, details);
    const [oldest] = this.recent.keys();
    if (this.recent.size > RECENT_DETAILS_MAX && oldest !== undefined) this.recent.delete(oldest);
  }

  /** One unreadable result never hides the others; it is neither cleaned up nor forgotten. */
  private async records(): Promise<{ readonly entry: Entry; readonly record: ResultRecord }[]> {
    const { entries } = await this.deps.coordination.list(this.deps.keys.results);
    const out: { entry: Entry; record: ResultRecord }[] = [];
    for (const entry of entries) {
      try {
        out.push({ entry, record: decodeRecord(RESULT_RECORD, entry) });
      } catch (error) {
        this.deps.log.error({ err: asError(error), key: entry.key }, 'result record unreadable');
      }
    }
    return out;
  }

  private readJob(entry: Entry): JobRecord | undefined {
    try {
      return decodeRecord(JOB_RECORD, entry);
    } catch (error) {
      // A user may end a job that cannot be recovered. What it kept is then retained, on doubt.
      this.deps.log.error({ err: asError(error), key: entry.key }, 'ending a job whose record is unreadable');
      return undefined;
    }
  }
}

function resultRecord(
  result: JobResult,
  details: JobDetailsView,
  job: JobRecord | undefined,
  writeId: string,
  pointer: ResultRecord['details'],
): ResultRecord {
  return {
    writeId,
    jobId: result.jobId,
    name: truncateText(result.name, NAME_BYTES_MAX),
    status: result.status,
    ...(result.error === undefined ? {} : { error: shortened(result.error) }),
    endedWallMs: result.endedWallMs,
    dirty: true,
    details: pointer,
    startMs: details.startMs,
    tasks: details.tasks,
    retainCheckpoints: retains(job?.retention, result.status),
    ...(job === undefined ? {} : { graphKey: job.graph.objectKey }),
    ...(job?.idempotencyHash === undefined ? {} : { idempotencyHash: job.idempotencyHash }),
  };
}

/** As Flink: a job that finished needs no checkpoint; one that failed keeps it unless never asked to. */
function retains(retention: JobRecord['retention'] | undefined, status: JobResult['status']): boolean {
  if (retention === undefined) return true;
  switch (status) {
    case 'FINISHED':
      return false;
    case 'CANCELED':
      return retention === 'RETAIN_ON_CANCELLATION';
    case 'FAILED':
      return retention !== 'NO_EXTERNALIZED_CHECKPOINTS';
  }
}

/** The whole error is in the details. */
function shortened(error: ErrorInfo): ErrorInfo {
  return {
    code: error.code,
    message: truncateText(error.message, ERROR_MESSAGE_BYTES_MAX),
    ...(error.hint === undefined ? {} : { hint: truncateText(error.hint, 200) }),
    ...(error.stack === undefined ? {} : { stack: truncateText(error.stack, ERROR_STACK_BYTES_MAX) }),
  };
}

function asResult(record: ResultRecord): JobResult {
  return {
    jobId: record.jobId,
    name: record.name,
    status: record.status,
    error: record.error,
    endedWallMs: record.endedWallMs,
  };
}

function overview(record: ResultRecord): JobOverviewView {
  return {
    jobId: record.jobId,
    name: record.name,
    status: record.status,
    startMs: record.startMs,
    endMs: record.endedWallMs,
    durationMs: record.startMs < 0 ? -1 : Math.max(0, record.endedWallMs - record.startMs),
    lastModificationMs: record.endedWallMs,
    tasks: record.tasks as JobOverviewView['tasks'],
  };
}
