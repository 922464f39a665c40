import type { CheckpointIdCounter } from '../../src/checkpoint/ports.ts';
import { MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import type { FencingToken, JobId } from '../../src/kernel/ids.ts';
import type { Entry, Revision } from '../coordination/coordination.ts';
import { unchanged } from './fenced-writer.ts';
import { hasWriteId } from './job-graph-store.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { COUNTER_RECORD } from './records.ts';
import type { StoreDeps } from './store-deps.ts';

/** Only this process writes it while it leads; more collisions than this mean a bug. */
const COLLISIONS_MAX = 100;

/**
 * Invariant I1: an id is returned only after the transaction that moved the counter past it, so no
 * two callers, under any leaders, get the same one. A failed reservation wastes an id, nothing more.
 */
export class HaCheckpointIdCounter implements CheckpointIdCounter {
  constructor(
    private readonly deps: StoreDeps,
    private readonly jobId: JobId,
  ) {}

  async next(token: FencingToken): Promise<number> {
    const { keys, coordination, writer } = this.deps;
    const [jobKey, key] = [keys.job(this.jobId), keys.counter(this.jobId)];
    let job: Entry | undefined = await coordination.get(jobKey);
    let counter: Entry | undefined = await coordination.get(key);
    for (let collision = 0; collision < COLLISIONS_MAX; collision++) {
      if (job === undefined) throw new NotFoundError(`job ${this.jobId} is not running: it has ended or never was`);
      const reserved = (counter === undefined ? 0 : decodeRecord(COUNTER_RECORD, counter).last) + 1;
      const revision: Revision = counter?.modRevision ?? 0n;
      const writeId = writer.newWriteId();
      const outcome = await writer.commit(token, {
        what: `reserving checkpoint id ${reserved} of job ${this.jobId}`,
        // The job's guard: a counter must not come back to life behind the clean-up of an ended job.
        guards: [unchanged(jobKey, job.modRevision), unchanged(key, revision)],
        then: [{ kind: 'put', key, value: encodeRecord(COUNTER_RECORD, { writeId, last: reserved }) }],
        isDone: (seen) => hasWriteId(seen.get(key), writeId),
      });
      if (outcome.kind === 'committed') return reserved;
      job = outcome.seen.get(jobKey);
      counter = outcome.seen.get(key);
    }
    throw new MillraceError('CONFLICT', `the checkpoint counter of job ${this.jobId} is contended`);
  }
}
