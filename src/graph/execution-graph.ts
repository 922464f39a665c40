import type { JobEdge, JobGraph, JobVertex } from '../contracts/job-graph.ts';
import type {
  InputChannelDescriptor,
  OutputEdgeDescriptor,
  SlotDeployment,
  TaskDeployment,
} from '../contracts/task.ts';
import type { DataAddress } from '../contracts/task.ts';
import { assert, present } from '../kernel/assert.ts';
import type { AllocationId, AttemptId, Branded, DeploymentId, VertexId } from '../kernel/ids.ts';
import { channelsOf, consumersOf, producersOf } from './channels.ts';
import { DisjointSets } from './disjoint-sets.ts';

/**
 * The ExecutionGraph: a JobGraph with one task per subtask, and what follows from its shape alone:
 * which tasks share a slot, and which must fail and restart together.
 *
 * Invariants:
 *   E1. A slot holds at most one subtask of each vertex, and only vertices of one slot sharing group.
 *   E2. Two tasks joined by a channel are in one region: every edge is pipelined.
 *   E3. Subtask i of every vertex of a group is in the group's slot i, so FORWARD channels stay in a slot.
 */

/** `<vertexId>_<subtaskIndex>`. */
export type TaskKey = Branded<string, 'TaskKey'>;

export const taskKey = (vertexId: VertexId, subtaskIndex: number) => `${vertexId}_${subtaskIndex}` as TaskKey;

export interface ExecutionTask {
  readonly key: TaskKey;
  readonly vertexId: VertexId;
  readonly subtaskIndex: number;
  /** As Flink shows it: `Source: x -> Map (1/4)`, counted from 1. */
  readonly name: string;
  /** The number of the slot that it needs, an index of {@link ExecutionPlan.slots}. */
  readonly slot: number;
  /** Index of {@link ExecutionPlan.regions}. */
  readonly region: number;
}

export interface ExecutionSlot {
  readonly slotNumber: number;
  readonly slotSharingGroup: string;
  readonly tasks: readonly TaskKey[];
}

export interface ExecutionPlan {
  readonly graph: JobGraph;
  /** By vertex in topological order, then by subtask index. */
  readonly tasks: readonly ExecutionTask[];
  readonly byKey: ReadonlyMap<TaskKey, ExecutionTask>;
  readonly slots: readonly ExecutionSlot[];
  readonly slotsNeeded: number;
  /** Pipelined regions: what has to be restarted when one of its tasks fails. */
  readonly regions: readonly (readonly TaskKey[])[];
}

export function expandJobGraph(graph: JobGraph): ExecutionPlan {
  const vertices = new Map(graph.vertices.map((vertex) => [vertex.id, vertex]));
  const slotBase = slotBases(graph.vertices);
  const regionOf = findRegions(graph, vertices);

  const tasks: ExecutionTask[] = [];
  const slotTasks: { slotSharingGroup: string; tasks: TaskKey[] }[] = [];
  const regions: TaskKey[][] = [];
  for (const vertex of graph.vertices) {
    const base = present(slotBase.get(vertex.slotSharingGroup), 'slot base');
    for (let i = 0; i < vertex.parallelism; i++) {
      const key = taskKey(vertex.id, i);
      const region = regionOf(vertex.id, i);
      const slot = base + i;
      tasks.push({
        key,
        vertexId: vertex.id,
        subtaskIndex: i,
        name: `${vertex.name} (${i + 1}/${vertex.parallelism})`,
        slot,
        region,
      });
      slotTasks[slot] ??= { slotSharingGroup: vertex.slotSharingGroup, tasks: [] };
      slotTasks[slot].tasks.push(key);
      regions[region] ??= [];
      regions[region].push(key);
    }
  }
  const slots = slotTasks.map((slot, slotNumber) => ({ slotNumber, ...slot }));
  return { graph, tasks, byKey: new Map(tasks.map((t) => [t.key, t])), slots, slotsNeeded: slots.length, regions };
}

/** The slot number of one subtask. */
export function slotOf(plan: ExecutionPlan, vertexId: VertexId, subtaskIndex: number): number {
  return present(plan.byKey.get(taskKey(vertexId, subtaskIndex)), 'task of the plan').slot;
}

/** What `buildSlotDeployments` needs of a granted slot; `Slot` of the contracts fits. */
export interface AllocatedSlot {
  readonly allocationId: AllocationId;
  readonly dataAddress: DataAddress;
}

export interface DeploymentInput {
  readonly deployment: DeploymentId;
  /** The oldest deployment of which tasks go on; default: none but this one. */
  readonly oldestLive?: DeploymentId;
  /** One slot for every slot number of the plan. */
  readonly allocations: ReadonlyMap<number, AllocatedSlot>;
  /** One attempt for every task of the plan. */
  readonly attempts: ReadonlyMap<TaskKey, { readonly attemptId: AttemptId; readonly attemptNumber: number }>;
  /** State already assigned to each subtask; undefined on a fresh start. */
  readonly restore?: (vertexId: VertexId, subtaskIndex: number) => TaskDeployment['restore'];
  /** The job has stopped: sources are to read nothing. */
  readonly suspended?: boolean;
  /** Only these regions (a partial failover); default: all. */
  readonly regions?: ReadonlySet<number>;
}

/** One message per slot that has something to run: what its worker needs to start the tasks. */
export function buildSlotDeployments(plan: ExecutionPlan, input: DeploymentInput): Map<AllocationId, SlotDeployment> {
  const { graph } = plan;
  const vertices = new Map(graph.vertices.map((vertex) => [vertex.id, vertex]));
  const inputsOf = groupBy(graph.edges, (edge) => edge.target);
  const outputsOf = groupBy(graph.edges, (edge) => edge.source);
  const result = new Map<AllocationId, SlotDeployment>();

  const allocationOf = (slot: number) => present(input.allocations.get(slot), `allocation of slot ${slot}`);

  const inputChannels = (task: ExecutionTask): InputChannelDescriptor[] => {
    const channels: InputChannelDescriptor[] = [];
    for (const edge of inputsOf.get(task.vertexId) ?? []) {
      const sizes = sizesOf(edge, vertices);
      for (const producerSubtask of producersOf(edge.partitioner, sizes, task.subtaskIndex)) {
        const producer = present(plan.byKey.get(taskKey(edge.source, producerSubtask)), 'producer');
        const allocation = allocationOf(producer.slot);
        channels.push({
          edgeId: edge.id,
          inputIndex: edge.inputIndex,
          subpartition: task.subtaskIndex - consumersOf(edge.partitioner, sizes, producerSubtask).first,
          producerSubtask,
          producerAttempt: present(input.attempts.get(producer.key), 'attempt of the producer').attemptId,
          producerAllocation: allocation.allocationId,
          producerAddress: allocation.dataAddress,
        });
      }
    }
    return channels;
  };

  const outputEdges = (task: ExecutionTask): OutputEdgeDescriptor[] =>
    (outputsOf.get(task.vertexId) ?? []).map((edge) => {
      const { first, count } = consumersOf(edge.partitioner, sizesOf(edge, vertices), task.subtaskIndex);
      return { edgeId: edge.id, subpartitions: count, firstConsumer: first };
    });

  const deployments = new Map<AllocationId, TaskDeployment[]>();
  for (const task of plan.tasks) {
    if (input.regions !== undefined && !input.regions.has(task.region)) continue;
    const attempt = present(input.attempts.get(task.key), `attempt of ${task.name}`);
    const restore = input.restore?.(task.vertexId, task.subtaskIndex);
    const deployment: TaskDeployment = {
      attemptId: attempt.attemptId,
      attemptNumber: attempt.attemptNumber,
      vertexId: task.vertexId,
      subtaskIndex: task.subtaskIndex,
      inputs: inputChannels(task),
      outputs: outputEdges(task),
      ...(restore === undefined ? {} : { restore }),
      ...(input.suspended === true ? { suspended: true } : {}),
    };
    const { allocationId } = allocationOf(task.slot);
    const inSlot = deployments.get(allocationId);
    if (inSlot === undefined) deployments.set(allocationId, [deployment]);
    else inSlot.push(deployment);
  }
  for (const [allocationId, tasks] of deployments) {
    const { deployment, oldestLive = deployment } = input;
    const older = oldestLive === deployment ? {} : { oldestLive };
    result.set(allocationId, { allocationId, jobId: graph.jobId, deployment, ...older, graph, tasks });
  }
  return result;
}

/** How many channels join each pair of slots; what placement keeps on one worker when it can. */
export function channelsBetweenSlots(plan: ExecutionPlan): Map<number, Map<number, number>> {
  const between = new Map<number, Map<number, number>>();
  const vertices = new Map(plan.graph.vertices.map((vertex) => [vertex.id, vertex]));
  const add = (from: number, to: number) => {
    const row = between.get(from) ?? new Map<number, number>();
    between.set(from, row);
    row.set(to, (row.get(to) ?? 0) + 1);
  };
  for (const edge of plan.graph.edges) {
    for (const channel of channelsOf(edge.partitioner, sizesOf(edge, vertices))) {
      const from = slotOf(plan, edge.source, channel.producer);
      const to = slotOf(plan, edge.target, channel.consumer);
      if (from === to) continue;
      add(from, to);
      add(to, from);
    }
  }
  return between;
}

function sizesOf(edge: JobEdge, vertices: ReadonlyMap<VertexId, JobVertex>) {
  return {
    producers: present(vertices.get(edge.source), 'source vertex').parallelism,
    consumers: present(vertices.get(edge.target), 'target vertex').parallelism,
  };
}

/** First slot number of each slot sharing group; a group needs as many slots as its widest vertex. */
function slotBases(vertices: readonly JobVertex[]): Map<string, number> {
  const width = new Map<string, number>();
  for (const vertex of vertices) {
    width.set(vertex.slotSharingGroup, Math.max(width.get(vertex.slotSharingGroup) ?? 0, vertex.parallelism));
  }
  const base = new Map<string, number>();
  let next = 0;
  for (const [group, slots] of width) {
    base.set(group, next);
    next += slots;
  }
  return base;
}

/** Numbers the connected components of the channels in the order of their first task. */
function findRegions(graph: JobGraph, vertices: ReadonlyMap<VertexId, JobVertex>) {
  const offset = new Map<VertexId, number>();
  let total = 0;
  for (const vertex of graph.vertices) {
    assert(!offset.has(vertex.id), 'vertex ids are unique');
    offset.set(vertex.id, total);
    total += vertex.parallelism;
  }
  const sets = new DisjointSets(total);
  for (const edge of graph.edges) {
    const sizes = sizesOf(edge, vertices);
    const source = present(offset.get(edge.source), 'source offset');
    const target = present(offset.get(edge.target), 'target offset');
    // All-to-all joins everything: one producer to all consumers and one consumer to all producers is enough.
    for (let p = 0; p < sizes.producers; p++) {
      const { first, count } = consumersOf(edge.partitioner, sizes, p);
      const last = p === 0 || count < sizes.consumers ? first + count : first + 1;
      for (let c = first; c < last; c++) sets.join(source + p, target + c);
    }
  }
  const numbers = new Map<number, number>();
  return (vertexId: VertexId, subtaskIndex: number): number => {
    const root = sets.find(present(offset.get(vertexId), 'offset') + subtaskIndex);
    const number = numbers.get(root) ?? numbers.size;
    numbers.set(root, number);
    return number;
  };
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
