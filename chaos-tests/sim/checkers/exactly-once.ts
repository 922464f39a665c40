import type { JobId } from '../../../src/kernel/ids.ts';
import type { SimRecord, SimSplit } from '../engine/records.ts';
import type { SimJob } from '../sim-config.ts';
import type { Checker } from './checker.ts';

/** More than any split has records. */
const OFFSETS_MAX = 10_000_000;

/**
 * 8: what is visible outside is what a run without faults would have shown: no record twice, none missing
 * when the job has finished, no count twice; and nothing before its checkpoint has completed.
 */
export const exactlyOnce: Checker = (world) => {
  const { keys } = world;
  const seen = new Map<string, Set<number>>();
  /** By job, by key: the counts that are visible. */
  const counted = new Map<string, Map<string, Set<number>>>();
  /** The newest completed checkpoint of each job. */
  const completed = new Map<string, number>();
  /** By job: the checkpoint with which it stopped. */
  const stopped = new Map<string, number>();
  /** By job and checkpoint, by split: how far it was read. */
  const read = new Map<string, Map<number, number>>();
  /** A job that goes on where another has stopped makes its output complete. */
  const lineage = new Map(world.config.jobs.map(({ graph, after }) => [graph.jobId, after ?? graph.jobId]));

  const show = (by: JobId, record: SimRecord, transaction: string) => {
    const jobId = lineage.get(by) ?? by;
    const inputs = seen.get(jobId) ?? new Set<number>();
    seen.set(jobId, inputs);
    const { split, offset, key, count } = record;
    const input = split * OFFSETS_MAX + offset;
    if (inputs.has(input))
      world.violated(8, `record ${split}:${offset} of ${jobId} is visible twice, now in ${transaction}`);
    inputs.add(input);
    if (count === undefined) return;
    const byKey = counted.get(jobId) ?? new Map<string, Set<number>>();
    counted.set(jobId, byKey);
    const counts = byKey.get(key) ?? new Set<number>();
    byKey.set(key, counts);
    if (counts.has(count))
      world.violated(8, `count ${key}=${count} of ${jobId} is visible twice, now in ${transaction}`);
    counts.add(count);
  };

  return {
    changed({ set }) {
      for (const change of set.changes) {
        if (change.kind !== 'put' || !change.entry.key.startsWith(keys.allCheckpoints)) continue;
        const [jobId = '', id] = change.entry.key.slice(keys.allCheckpoints.length).split('/');
        const { kind, stop } = JSON.parse(change.entry.value) as { kind: string; stop?: string };
        if (stop !== undefined) stopped.set(jobId, Math.min(Number(id), stopped.get(jobId) ?? Number(id)));
        else if (kind === 'SAVEPOINT') continue; // No sink commits by it.
        completed.set(jobId, Math.max(Number(id), completed.get(jobId) ?? 0));
      }
    },
    checkpointAcked({ jobId, checkpointId }, _final, { splits }) {
      const key = `${jobId}/${checkpointId}`;
      const positions = read.get(key) ?? new Map<number, number>();
      read.set(key, positions);
      for (const { split, next } of splits) positions.set(split, next);
    },
    outputCommitted(jobId, { id, jobId: preparedBy, checkpointId, records }) {
      const newest = completed.get(preparedBy) ?? 0;
      if (newest < checkpointId)
        world.violated(8, `${id} of ${jobId} is visible, and no checkpoint that holds it has completed`);
      for (const record of records) show(jobId, record, id);
    },
    atRest() {
      for (const job of world.config.jobs) {
        const { jobId } = job.graph;
        const result = world.etcd.get(keys.result(jobId));
        if (result === undefined || !result.value.includes('"status":"FINISHED"')) continue;
        const next = world.config.jobs.find(({ after }) => after === jobId);
        if (next !== undefined && world.etcd.get(keys.result(next.graph.jobId)) !== undefined) continue;
        const whole = lineage.get(jobId) ?? jobId;
        const visible = seen.get(whole)?.size ?? 0;
        const expected = recordsUpTo(job, stopped.get(jobId));
        if (visible !== expected) world.violated(8, `${jobId} finished with ${visible} of ${expected} records visible`);
        checkCounts(whole);
      }
    },
  };

  /** What a job has read when it ends, or stops with a checkpoint. A split that nobody read then was at its end. */
  function recordsUpTo({ graph, records }: SimJob, checkpointId: number | undefined): number {
    if (checkpointId === undefined) return records;
    const positions = read.get(`${graph.jobId}/${checkpointId}`);
    let sum = 0;
    for (const { operators } of graph.vertices)
      for (const { splits = [] } of operators)
        for (const { split, end } of splits as readonly SimSplit[]) sum += positions?.get(split) ?? end;
    return sum;
  }

  function checkCounts(jobId: JobId): void {
    for (const [key, counts] of counted.get(jobId) ?? []) {
      const highest = Math.max(...counts);
      if (highest !== counts.size)
        world.violated(8, `${jobId} finished with ${key} counted to ${highest}, and ${counts.size} counts are visible`);
    }
  }
};
