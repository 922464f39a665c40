import type { JobId } from '../../../src/kernel/ids.ts';
import type { SimRecord } from '../engine/records.ts';
import type { Checker } from './checker.ts';

/**
 * 8: what is visible outside is what a run without faults would have shown: no record twice, none missing
 * when the job has finished, no count twice; and nothing before its checkpoint has completed.
 */
export const exactlyOnce: Checker = (world) => {
  const { keys } = world;
  const seen = new Map<string, Set<string>>();
  const counted = new Map<string, Set<string>>();
  /** The newest completed checkpoint of each job. */
  const completed = new Map<string, number>();

  const show = (jobId: JobId, record: SimRecord, transaction: string) => {
    const inputs = seen.get(jobId) ?? new Set<string>();
    seen.set(jobId, inputs);
    const input = `${record.split}:${record.offset}`;
    if (inputs.has(input)) world.violated(8, `record ${input} of ${jobId} is visible twice, now in ${transaction}`);
    inputs.add(input);
    if (record.count === undefined) return;
    const counts = counted.get(jobId) ?? new Set<string>();
    counted.set(jobId, counts);
    const count = `${record.key}=${record.count}`;
    if (counts.has(count)) world.violated(8, `count ${count} of ${jobId} is visible twice, now in ${transaction}`);
    counts.add(count);
  };

  return {
    changed({ set }) {
      for (const change of set.changes) {
        if (change.kind !== 'put' || !change.entry.key.startsWith(keys.allCheckpoints)) continue;
        const [jobId = '', id] = change.entry.key.slice(keys.allCheckpoints.length).split('/');
        completed.set(jobId, Math.max(Number(id), completed.get(jobId) ?? 0));
      }
    },
    outputCommitted(jobId, { id, checkpointId, records }) {
      const newest = completed.get(jobId) ?? 0;
      if (newest < checkpointId)
        world.violated(8, `${id} of ${jobId} is visible, and no checkpoint that holds it has completed`);
      for (const record of records) show(jobId, record, id);
    },
    atRest() {
      for (const { graph, records } of world.config.jobs) {
        const result = world.etcd.get(keys.result(graph.jobId));
        if (result === undefined || !result.value.includes('"status":"FINISHED"')) continue;
        const visible = seen.get(graph.jobId)?.size ?? 0;
        if (visible !== records)
          world.violated(8, `${graph.jobId} finished with ${visible} of ${records} records visible`);
        checkCounts(graph.jobId);
      }
    },
  };

  function checkCounts(jobId: JobId): void {
    const highest = new Map<string, number>();
    const counts = counted.get(jobId) ?? new Set<string>();
    for (const count of counts) {
      const [key = '', n] = count.split('=');
      highest.set(key, Math.max(highest.get(key) ?? 0, Number(n)));
    }
    const sum = [...highest.values()].reduce((a, b) => a + b, 0);
    if (sum !== counts.size)
      world.violated(8, `${jobId} finished with counts up to ${sum}, of which ${counts.size} are visible`);
  }
};
