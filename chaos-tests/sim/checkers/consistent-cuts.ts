import type { JobGraph } from '../../../src/contracts/job-graph.ts';
import type { CheckpointAck } from '../../../src/contracts/task.ts';
import type { SimSplit } from '../engine/records.ts';
import type { Checker } from './checker.ts';

/**
 * 8, before anything is restored: a completed checkpoint is one instant of the stream. What its sources have read
 * is what its counting tasks have counted; nothing is between them, nothing is in both.
 */
export const consistentCuts: Checker = (world) => {
  const { keys } = world;
  const graphs = new Map(world.config.jobs.map(({ graph }) => [graph.jobId as string, graph]));
  /** By subtask and checkpoint; `last`: by subtask, in its final checkpoints. */
  const positions = new Map<string, readonly SimSplit[]>();
  const counted = new Map<string, number>();
  const lastCounted = new Map<string, number>();
  /** `job/id` of every checkpoint that a job has completed itself. */
  const completed = new Set<string>();
  /** By job: the checkpoint with which it has stopped. */
  const stops = new Map<string, number>();
  /** By subtask: what the state that its newest attempt started from had counted. */
  const base = new Map<string, number>();

  const subtaskOf = ({ jobId, vertexId, subtaskIndex }: Pick<CheckpointAck, 'jobId' | 'vertexId' | 'subtaskIndex'>) =>
    `${jobId}/${vertexId}/${subtaskIndex}`;
  const countedBy = (subtask: string, checkpointId: number) =>
    counted.get(`${subtask}/${checkpointId}`) ?? lastCounted.get(subtask) ?? 0;

  const check = (graph: JobGraph, checkpointId: number) => {
    const counting = graph.vertices.find(({ operators }) => operators.some(({ kind }) => kind === 'count'));
    if (counting === undefined) return;
    let read = 0;
    for (const { id, parallelism, operators } of graph.vertices) {
      const splits = operators.flatMap((operator) => (operator.splits ?? []) as readonly SimSplit[]);
      if (splits.length === 0) continue;
      const known = new Map<number, number>();
      for (let i = 0; i < parallelism; i++) {
        const subtask = `${graph.jobId}/${id}/${i}`;
        // A task that has finished since the job stopped has read what it had read when it stopped, and no more.
        const at = positions.get(`${subtask}/${checkpointId}`) ?? positions.get(`${subtask}/${stops.get(graph.jobId)}`);
        for (const { split, next } of at ?? []) known.set(split, next);
      }
      // One that no such task had: its task has finished by itself, at the end of it.
      for (const { split, end } of splits) read += known.get(split) ?? end;
    }
    let sum = 0;
    for (let i = 0; i < counting.parallelism; i++) sum += countedBy(`${graph.jobId}/${counting.id}/${i}`, checkpointId);
    if (sum !== read)
      world.violated(8, `checkpoint ${checkpointId} of ${graph.jobId} has read ${read} records and counted ${sum}`);
  };

  return {
    taskStarted(_worker, { jobId, graph, tasks }, attemptId) {
      const task = tasks.find((one) => one.attemptId === attemptId);
      if (task === undefined) return;
      const from = task.restore?.checkpointId;
      const subtask = subtaskOf({ jobId, ...task });
      // Not one that it only began: the savepoint of the job before may have the same id.
      const own = completed.has(`${jobId}/${from}`);
      // Of the job before, when it starts from that one's savepoint.
      const before = world.config.jobs.find((job) => job.graph.jobId === jobId)?.after;
      const origin = own || graph.restoreFrom === undefined ? subtask : subtaskOf({ ...task, jobId: before ?? jobId });
      base.set(`${subtask}/${attemptId}`, from === undefined ? 0 : countedBy(origin, from));
    },
    checkpointAcked(ack, final, { splits, records }) {
      const subtask = subtaskOf(ack);
      positions.set(`${subtask}/${ack.checkpointId}`, splits);
      const sum = (base.get(`${subtask}/${ack.attemptId}`) ?? 0) + records;
      counted.set(`${subtask}/${ack.checkpointId}`, sum);
      if (final) lastCounted.set(subtask, sum);
    },
    changed({ set }) {
      for (const change of set.changes) {
        if (change.kind !== 'put' || !change.entry.key.startsWith(keys.allCheckpoints)) continue;
        const [jobId = '', id] = change.entry.key.slice(keys.allCheckpoints.length).split('/');
        const graph = graphs.get(jobId);
        if (graph === undefined || change.entry.value.includes('"claimed":true')) continue;
        if (change.entry.value.includes('"stop":')) stops.set(jobId, Number(id));
        completed.add(`${jobId}/${Number(id)}`);
        check(graph, Number(id));
      }
    },
  };
};
