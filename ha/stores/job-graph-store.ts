import { JOB_GRAPH_FORMAT, type JobGraph } from '../../src/contracts/job-graph.ts';
import { CorruptError, InvalidArgumentError, MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import { type FencingToken, isJobId, type JobId } from '../../src/kernel/ids.ts';
import type { JobGraphStore, StoredJob } from '../../src/dispatcher/ports.ts';
import type { Entry, Guard, Op } from '../coordination/coordination.ts';
import { hashIdempotencyKey } from './cluster-keys.ts';
import { absent, type Seen, unchanged } from './fenced-writer.ts';
import { decodeObject, encodeObject, readVerified } from './object-codec.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { CANCEL_RECORD, GRAPH_OBJECT, IDEMPOTENCY_RECORD, JAR_RECORD, JOB_RECORD, type JobRecord } from './records.ts';
import { deleteObjects, putObject, type StoreDeps } from './store-deps.ts';
import { NAME_BYTES_MAX, truncateText } from './truncate-text.ts';

export type SubmitOutcome = { readonly outcome: 'created' | 'duplicate'; readonly jobId: JobId };

/**
 * Jobs that were promised to run.
 *
 * Invariants:
 *   G1. `jobs/<id>` is written once, by the transaction that promises the job, and removed once, by
 *       the one that writes its result. In between it never changes, so its revision guards every
 *       other write that concerns the job.
 *   G2. A job id has a job or a result, never both, and never a second life while either exists.
 *   G3. A bundle of the jar store can only be promised while its jar exists. A jar that is gone is
 *       gone for ever, so a bundle that no job references then can be swept.
 */
export class HaJobGraphStore implements JobGraphStore {
  constructor(private readonly deps: StoreDeps) {}

  async submit(
    graph: JobGraph,
    token: FencingToken,
    options: { readonly idempotencyKey?: string },
  ): Promise<SubmitOutcome> {
    if (!isJobId(graph.jobId))
      throw new InvalidArgumentError(`"${graph.jobId}" is not a job id: 32 lower-case hex digits`);
    const { keys, coordination } = this.deps;
    const idempotencyHash =
      options.idempotencyKey === undefined ? undefined : hashIdempotencyKey(options.idempotencyKey);
    const identities = [keys.job(graph.jobId), keys.result(graph.jobId)];
    if (idempotencyHash !== undefined) identities.push(keys.idempotencyByHash(idempotencyHash));

    // A look before the upload: the usual repeated submission costs only reads.
    const before = new Map(
      await Promise.all(identities.map(async (key) => [key, await coordination.get(key)] as const)),
    );
    const early = this.duplicate(graph.jobId, idempotencyHash, before);
    if (early !== undefined) return early;
    const jarGuards = await this.guardBundle(graph);

    const writeId = this.deps.writer.newWriteId();
    const bytes = encodeObject(GRAPH_OBJECT, graph);
    const object = await putObject(this.deps, keys.graphObject(graph.jobId, token, writeId), bytes);
    object.assertFresh();
    const record = jobRecord(graph, writeId, object, idempotencyHash);
    const then: Op[] = [{ kind: 'put', key: keys.job(graph.jobId), value: encodeRecord(JOB_RECORD, record) }];
    if (idempotencyHash !== undefined)
      then.push({
        kind: 'put',
        key: keys.idempotencyByHash(idempotencyHash),
        value: encodeRecord(IDEMPOTENCY_RECORD, { writeId, jobId: graph.jobId }),
      });
    const outcome = await this.deps.writer.commit(token, {
      what: `submitting job ${graph.jobId}`,
      guards: [...identities.map(absent), ...jarGuards],
      then,
      isDone: (seen) => hasWriteId(seen.get(keys.job(graph.jobId)), writeId),
    });
    if (outcome.kind === 'committed') return { outcome: 'created', jobId: graph.jobId };

    // Refused for certain, so nothing will ever point to the object that was just stored.
    await deleteObjects(this.deps, 'graph of a refused submission', [object.objectKey]);
    const duplicate = this.duplicate(graph.jobId, idempotencyHash, outcome.seen);
    if (duplicate !== undefined) return duplicate;
    throw bundleGone(graph);
  }

  async findByIdempotencyKey(key: string): Promise<JobId | undefined> {
    const entry = await this.deps.coordination.get(this.deps.keys.idempotency(key));
    return entry === undefined ? undefined : decodeRecord(IDEMPOTENCY_RECORD, entry).jobId;
  }

  async list(): Promise<readonly StoredJob[]> {
    const { keys, coordination, log } = this.deps;
    const jobs = await coordination.list(keys.jobs);
    const cancels = await coordination.list(keys.cancels);
    const cancelled = new Set(cancels.entries.map((entry) => entry.key.slice(keys.cancels.length)));
    const out: StoredJob[] = [];
    for (const entry of jobs.entries) {
      const jobId = entry.key.slice(keys.jobs.length);
      if (!isJobId(jobId)) {
        log.error({ key: entry.key }, 'ignoring a job record whose key is no job id');
        continue;
      }
      out.push({ jobId, cancelRequested: cancelled.has(jobId), ...this.outline(entry, jobId) });
    }
    return out;
  }

  async load(jobId: JobId): Promise<JobGraph> {
    const entry = await this.deps.coordination.get(this.deps.keys.job(jobId));
    if (entry === undefined) throw new NotFoundError(`job ${jobId} is not stored`);
    const record = decodeRecord(JOB_RECORD, entry);
    const bytes = await readVerified(this.deps.objects, record.graph);
    const graph = decodeObject(GRAPH_OBJECT, record.graph.objectKey, bytes);
    if (graph.formatVersion > JOB_GRAPH_FORMAT)
      throw new MillraceError(
        'UNSUPPORTED_VERSION',
        `the graph of job ${jobId} has format ${graph.formatVersion}; this program reads up to ${JOB_GRAPH_FORMAT}`,
        { hint: 'It was submitted by a newer millrace: upgrade this master.' },
      );
    if (graph.jobId !== jobId) throw new CorruptError(`the graph stored for job ${jobId} belongs to ${graph.jobId}`);
    return graph;
  }

  async requestCancel(jobId: JobId, token: FencingToken): Promise<void> {
    const { keys, coordination, clock, writer } = this.deps;
    const job = await coordination.get(keys.job(jobId));
    if (job === undefined) throw notStored(jobId);
    if ((await coordination.get(keys.cancel(jobId))) !== undefined) return;
    const writeId = writer.newWriteId();
    const outcome = await writer.commit(token, {
      what: `requesting to cancel job ${jobId}`,
      guards: [unchanged(job.key, job.modRevision), absent(keys.cancel(jobId))],
      then: [
        {
          kind: 'put',
          key: keys.cancel(jobId),
          value: encodeRecord(CANCEL_RECORD, { writeId, requestedWallMs: clock.wallMs() }),
        },
      ],
      isDone: (seen) => hasWriteId(seen.get(keys.cancel(jobId)), writeId),
    });
    if (outcome.kind === 'committed') return;
    // The wish of another request counts as well; else the job has ended in the meantime.
    if (outcome.seen.get(keys.cancel(jobId)) === undefined) throw notStored(jobId);
  }

  /** An unreadable record still lists its job: only loading it fails. */
  private outline(entry: Entry, jobId: JobId): Pick<StoredJob, 'name' | 'submittedWallMs'> {
    try {
      const { name, submittedWallMs } = decodeRecord(JOB_RECORD, entry);
      return { name, submittedWallMs };
    } catch (error) {
      this.deps.log.error({ err: error, jobId }, 'job record unreadable');
      return { name: `${jobId} (unreadable)`, submittedWallMs: 0 };
    }
  }

  private duplicate(jobId: JobId, idempotencyHash: string | undefined, seen: Seen): SubmitOutcome | undefined {
    const { keys } = this.deps;
    const byId = seen.get(keys.job(jobId)) ?? seen.get(keys.result(jobId));
    const byKey = idempotencyHash === undefined ? undefined : seen.get(keys.idempotencyByHash(idempotencyHash));
    if (byKey === undefined) return byId === undefined ? undefined : { outcome: 'duplicate', jobId };
    const named = decodeRecord(IDEMPOTENCY_RECORD, byKey).jobId;
    if (byId !== undefined && named !== jobId)
      throw new MillraceError(
        'CONFLICT',
        `the idempotency key stands for job ${named}, and job ${jobId} exists as well`,
        {
          hint: 'Use one idempotency key for one job id.',
        },
      );
    return { outcome: 'duplicate', jobId: named };
  }

  /** G3: while this guard holds, the sweeper sees the bundle referenced by its jar. */
  private async guardBundle(graph: JobGraph): Promise<readonly Guard[]> {
    if (graph.bundle.kind !== 'object') return [];
    const jarId = this.deps.keys.jarOfObject(graph.bundle.objectKey);
    if (jarId === undefined) return [];
    const entry = await this.deps.coordination.get(this.deps.keys.jar(jarId));
    if (entry === undefined) throw bundleGone(graph);
    const { bundle } = decodeRecord(JAR_RECORD, entry);
    if (bundle.objectKey !== graph.bundle.objectKey || bundle.digest !== graph.bundle.digest) throw bundleGone(graph);
    return [unchanged(entry.key, entry.modRevision)];
  }
}

function jobRecord(
  graph: JobGraph,
  writeId: string,
  object: { readonly objectKey: string; readonly digest: JobRecord['graph']['digest']; readonly bytes: number },
  idempotencyHash: string | undefined,
): JobRecord {
  return {
    writeId,
    jobId: graph.jobId,
    name: truncateText(graph.name, NAME_BYTES_MAX),
    submittedWallMs: graph.submittedWallMs,
    graph: { objectKey: object.objectKey, digest: object.digest, bytes: object.bytes },
    ...(graph.bundle.kind === 'object' ? { bundleKey: graph.bundle.objectKey } : {}),
    ...(graph.restoreFrom === undefined ? {} : { restoreKey: graph.restoreFrom.metadataKey }),
    retention: graph.config.checkpointing.externalizedRetention,
    checkpointTimeoutMs: graph.config.checkpointing.timeoutMs,
    ...(idempotencyHash === undefined ? {} : { idempotencyHash }),
  };
}

/** Whether the entry is of the write with this id. Any form: it may be of another version. */
export function hasWriteId(entry: Entry | undefined, writeId: string): boolean {
  return entry?.value.includes(`"writeId":"${writeId}"`) === true;
}

function notStored(jobId: JobId): NotFoundError {
  return new NotFoundError(`job ${jobId} is not running: it has ended or never was`);
}

function bundleGone(graph: JobGraph): NotFoundError {
  const key = graph.bundle.kind === 'object' ? graph.bundle.objectKey : graph.bundle.programId;
  return new NotFoundError(`the jar of bundle ${key} does not exist (any more)`, { hint: 'Upload it again.' });
}
