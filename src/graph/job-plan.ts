import {
  JOB_GRAPH_FORMAT,
  type JobEdge,
  type JobPlan,
  type JobVertex,
  type OperatorDescriptor,
} from '../contracts/job-graph.ts';
import { assert, present } from '../kernel/assert.ts';
import { digestOf } from '../kernel/digest.ts';
import { asVertexId, type OperatorId, type VertexId } from '../kernel/ids.ts';
import { type Chain, chainName, findChains, isChained } from './chaining.ts';
import { operatorIds } from './operator-ids.ts';
import type { StreamEdge, StreamGraph } from './stream-graph.ts';
import { analyse, type Topology } from './topology.ts';

/** A program's graph as a job, and the way back from the job's ids to the program's nodes. */
export interface TranslatedGraph {
  readonly plan: JobPlan;
  /** By node number. */
  readonly operatorIds: ReadonlyMap<number, OperatorId>;
  /** Ids of the edges that cross tasks; chained edges have none. */
  readonly edgeIds: ReadonlyMap<StreamEdge, string>;
}

/** What each source found, by node number. */
export type SplitsByNode = ReadonlyMap<number, readonly unknown[]>;

const VERTEX_NAME_LENGTH_MAX = 2_000;

/** StreamGraph -> JobGraph, without identity and bundle. Pure: the same graph gives the same plan for ever. */
export function translateStreamGraph<Op>(graph: StreamGraph<Op>, splits: SplitsByNode = new Map()): TranslatedGraph {
  const topology = analyse(graph);
  const ids = operatorIds(topology);
  assert(new Set(ids.values()).size === graph.nodes.length, 'operator ids are unique');
  const idOf = (nodeId: number) => present(ids.get(nodeId), 'operator id');

  const chains = findChains(topology);
  const vertexOf = new Map<number, VertexId>();
  for (const chain of chains) {
    for (const node of chain.nodes) vertexOf.set(node.nodeId, asVertexId(idOf(chain.head.nodeId)));
  }
  const vertices = sortVertices(
    chains.map((chain) => toVertex(topology, chain, idOf, splits)),
    graph.edges.map((edge) => ({
      source: present(vertexOf.get(edge.sourceNode), 'vertex'),
      target: present(vertexOf.get(edge.targetNode), 'vertex'),
    })),
  );

  const edgeIds = new Map<StreamEdge, string>();
  const edges: JobEdge[] = [];
  const used = new Map<string, number>();
  for (const node of topology.order) {
    for (const edge of topology.inputsOf(node.nodeId)) {
      if (isChained(topology, edge)) continue;
      const sourceOperator = idOf(edge.sourceNode);
      const targetOperator = idOf(edge.targetNode);
      const base = `${sourceOperator}-${targetOperator}-${edge.inputIndex}`;
      // A stream united with itself reads the same operator twice.
      const times = used.get(base) ?? 0;
      used.set(base, times + 1);
      const id = times === 0 ? base : `${base}-${times}`;
      edgeIds.set(edge, id);
      edges.push({
        id,
        source: present(vertexOf.get(edge.sourceNode), 'source vertex'),
        sourceOperator,
        target: present(vertexOf.get(edge.targetNode), 'target vertex'),
        targetOperator,
        inputIndex: edge.inputIndex,
        partitioner: edge.partitioner,
        ...(edge.sideOutput === undefined ? {} : { sideOutput: edge.sideOutput }),
      });
    }
  }
  const plan: JobPlan = {
    formatVersion: JOB_GRAPH_FORMAT,
    name: graph.name,
    vertices,
    edges,
    config: graph.config,
    fingerprint: fingerprintOf(vertices, edges),
  };
  return { plan, operatorIds: ids, edgeIds };
}

function toVertex<Op>(
  topology: Topology<Op>,
  chain: Chain<Op>,
  idOf: (nodeId: number) => OperatorId,
  splits: SplitsByNode,
): JobVertex {
  const { head } = chain;
  const operators = chain.nodes.map((node): OperatorDescriptor => {
    const found = splits.get(node.nodeId);
    return {
      id: idOf(node.nodeId),
      ...(node.uid === undefined ? {} : { uid: node.uid }),
      name: node.name,
      kind: node.kind,
      inputs: node === head ? [] : topology.inputsOf(node.nodeId).map((edge) => idOf(edge.sourceNode)),
      ...(found === undefined ? {} : { splits: [...found] }),
      ...(node.twoPhaseCommit ? { twoPhaseCommit: true } : {}),
    };
  });
  return {
    id: asVertexId(idOf(head.nodeId)),
    name: chainName(topology, chain, VERTEX_NAME_LENGTH_MAX),
    parallelism: head.parallelism,
    maxParallelism: head.maxParallelism,
    slotSharingGroup: head.slotSharingGroup,
    operators,
  };
}

/**
 * Heads in topological order are not vertices in topological order: a chain may be read by a vertex whose
 * head came before the chain's tail. So the vertices are sorted once more, keeping their order where free.
 */
function sortVertices(
  vertices: readonly JobVertex[],
  edges: readonly { readonly source: VertexId; readonly target: VertexId }[],
): JobVertex[] {
  const between = edges.filter((edge) => edge.source !== edge.target);
  const sorted: JobVertex[] = [];
  const done = new Set<VertexId>();
  let waiting = [...vertices];
  while (waiting.length > 0) {
    const ready = waiting.find((vertex) => between.every((edge) => edge.target !== vertex.id || done.has(edge.source)));
    // A chain has one head, and all it reads from outside enters there; so chains of a DAG form a DAG.
    const next = present(ready, 'next vertex in topological order');
    sorted.push(next);
    done.add(next.id);
    waiting = waiting.filter((vertex) => vertex !== next);
  }
  return sorted;
}

/** Over structure only: splits and configuration may differ between two runs of the same program. */
function fingerprintOf(vertices: readonly JobVertex[], edges: readonly JobEdge[]): string {
  const structure = {
    vertices: vertices.map((vertex) => [
      vertex.id,
      vertex.parallelism,
      vertex.maxParallelism,
      vertex.slotSharingGroup,
      vertex.operators.map((operator) => [
        operator.id,
        operator.kind,
        operator.name,
        operator.inputs,
        operator.twoPhaseCommit === true,
      ]),
    ]),
    edges: edges.map(({ id, partitioner, sideOutput }) =>
      sideOutput === undefined ? [id, partitioner] : [id, partitioner, sideOutput],
    ),
  };
  return digestOf(JSON.stringify(structure));
}
