import type { JobGraph, JobVertex } from '../../../src/contracts/job-graph.ts';
import { subtaskForKeyGroup } from '../../../src/contracts/key-groups.ts';
import type { TaskDeployment } from '../../../src/contracts/task.ts';
import { MillraceError } from '../../../src/kernel/errors.ts';
import { keyGroupFor } from '../../../src/state/key-group-hash.ts';
import { type DataMessage, Subpartition } from './data-plane.ts';
import type { SimRecord } from './records.ts';

const OUTSTANDING_MAX = 8;

interface Edge {
  readonly hash: boolean;
  readonly subpartitions: readonly Subpartition[];
  readonly firstConsumer: number;
  readonly consumers: JobVertex;
  next: number;
}

/** Where the records of one task go. */
export class SimOutputs {
  private readonly edges = new Map<string, Edge>();
  private readonly gathered = new Map<Subpartition, SimRecord[]>();

  constructor(graph: JobGraph, task: TaskDeployment) {
    for (const { edgeId, subpartitions, firstConsumer } of task.outputs) {
      const edge = graph.edges.find(({ id }) => id === edgeId);
      const consumers = graph.vertices.find(({ id }) => id === edge?.target);
      if (edge === undefined || consumers === undefined) throw new MillraceError('INVALID_ARGUMENT', 'no such edge');
      this.edges.set(edgeId, {
        hash: edge.partitioner === 'HASH',
        subpartitions: Array.from({ length: subpartitions }, () => new Subpartition()),
        firstConsumer,
        consumers,
        next: task.subtaskIndex,
      });
    }
  }

  find(edgeId: string, subpartition: number): Subpartition | undefined {
    return this.edges.get(edgeId)?.subpartitions[subpartition];
  }

  /** One slow consumer holds the task up. */
  get full(): boolean {
    for (const { subpartitions } of this.edges.values())
      if (subpartitions.some(({ outstanding }) => outstanding >= OUTSTANDING_MAX)) return true;
    return false;
  }

  emit(record: SimRecord): void {
    for (const edge of this.edges.values()) {
      const { subpartitions, consumers, firstConsumer } = edge;
      const { maxParallelism, parallelism } = consumers;
      const target = edge.hash
        ? subtaskForKeyGroup(maxParallelism, parallelism, keyGroupFor(record.key, maxParallelism)) - firstConsumer
        : edge.next++ % subpartitions.length;
      const subpartition = subpartitions[target];
      if (subpartition === undefined) continue;
      const gathered = this.gathered.get(subpartition);
      if (gathered === undefined) this.gathered.set(subpartition, [record]);
      else gathered.push(record);
    }
  }

  /** What was gathered leaves before anything else does. */
  flush(): void {
    for (const [subpartition, records] of this.gathered) subpartition.push({ kind: 'records', records });
    this.gathered.clear();
  }

  broadcast(message: DataMessage): void {
    this.flush();
    for (const { subpartitions } of this.edges.values()) for (const one of subpartitions) one.push(message);
  }

  fail(error: Error): void {
    for (const { subpartitions } of this.edges.values()) for (const one of subpartitions) one.fail(error);
  }
}
