import { InvalidArgumentError } from '../kernel/errors.ts';
import type { StreamEdge, StreamGraph, StreamNode } from './stream-graph.ts';

/** A StreamGraph that has been checked, with its nodes in topological order and its edges by end. */
export interface Topology<Op> {
  /** Inputs before readers; among equals the one made first. Deterministic for a deterministic `main`. */
  readonly order: readonly StreamNode<Op>[];
  readonly byId: ReadonlyMap<number, StreamNode<Op>>;
  readonly inputsOf: (nodeId: number) => readonly StreamEdge[];
  readonly outputsOf: (nodeId: number) => readonly StreamEdge[];
}

/** Rejects whatever a job cannot be made of, with every problem in one message. */
export function analyse<Op>(graph: StreamGraph<Op>): Topology<Op> {
  const byId = new Map(graph.nodes.map((node) => [node.nodeId, node]));
  const problems = [...nodeProblems(graph, byId.size), ...edgeProblems(graph, byId)];
  if (problems.length > 0) throw new InvalidArgumentError(`the job cannot be built: ${problems.join('; ')}`);

  const inputs = new Map<number, StreamEdge[]>(graph.nodes.map((node) => [node.nodeId, []]));
  const outputs = new Map<number, StreamEdge[]>(graph.nodes.map((node) => [node.nodeId, []]));
  for (const edge of graph.edges) {
    inputs.get(edge.targetNode)?.push(edge);
    outputs.get(edge.sourceNode)?.push(edge);
  }
  const topology = {
    byId,
    inputsOf: (nodeId: number) => inputs.get(nodeId) ?? [],
    outputsOf: (nodeId: number) => outputs.get(nodeId) ?? [],
  };
  return { ...topology, order: sort(graph, topology) };
}

function nodeProblems<Op>(graph: StreamGraph<Op>, distinct: number): string[] {
  const problems: string[] = [];
  if (graph.nodes.length === 0) problems.push('it has no operators');
  if (distinct < graph.nodes.length) problems.push('two nodes have the same number');
  const read = new Set(graph.edges.map((edge) => edge.targetNode));
  const uids = new Map<string, string>();
  for (const node of graph.nodes) {
    const who = `"${node.name}"`;
    if (node.parallelism > node.maxParallelism) {
      problems.push(`${who} has parallelism ${node.parallelism}, over its maximum parallelism ${node.maxParallelism}`);
    }
    if (node.kind === 'source' && read.has(node.nodeId)) problems.push(`the source ${who} has an input`);
    if (node.kind !== 'source' && !read.has(node.nodeId)) problems.push(`${who} has no input`);
    if (node.uid === undefined) continue;
    const owner = uids.get(node.uid);
    if (owner !== undefined) problems.push(`"${owner}" and ${who} have the same uid "${node.uid}"`);
    uids.set(node.uid, node.name);
  }
  return problems;
}

function edgeProblems<Op>(graph: StreamGraph<Op>, byId: ReadonlyMap<number, StreamNode<Op>>): string[] {
  const problems: string[] = [];
  for (const edge of graph.edges) {
    const source = byId.get(edge.sourceNode);
    const target = byId.get(edge.targetNode);
    if (source === undefined || target === undefined) {
      problems.push(`an edge joins ${edge.sourceNode} and ${edge.targetNode}, of which one does not exist`);
      continue;
    }
    const between = `"${source.name}" and "${target.name}"`;
    if (edge.partitioner === 'FORWARD' && source.parallelism !== target.parallelism) {
      problems.push(
        `FORWARD between ${between} needs equal parallelism, not ${source.parallelism} and ${target.parallelism}`,
      );
    }
    if (edge.partitioner === 'HASH' && edge.keySelector === undefined) {
      problems.push(`HASH between ${between} has no key selector`);
    }
  }
  return problems;
}

function sort<Op>(graph: StreamGraph<Op>, topology: Omit<Topology<Op>, 'order'>): StreamNode<Op>[] {
  const missing = new Map(graph.nodes.map((node) => [node.nodeId, topology.inputsOf(node.nodeId).length]));
  const order: StreamNode<Op>[] = [];
  const ready = graph.nodes.filter((node) => missing.get(node.nodeId) === 0);
  ready.sort((a, b) => b.nodeId - a.nodeId);
  for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
    order.push(next);
    for (const edge of topology.outputsOf(next.nodeId)) {
      const left = (missing.get(edge.targetNode) ?? 0) - 1;
      missing.set(edge.targetNode, left);
      const target = topology.byId.get(edge.targetNode);
      if (left === 0 && target !== undefined) insertDescending(ready, target);
    }
  }
  if (order.length < graph.nodes.length) {
    const stuck = graph.nodes.filter((node) => !order.includes(node)).map((node) => `"${node.name}"`);
    throw new InvalidArgumentError(`the job cannot be built: these operators form a cycle: ${stuck.join(', ')}`);
  }
  return order;
}

function insertDescending<Op>(nodes: StreamNode<Op>[], node: StreamNode<Op>): void {
  let at = nodes.length;
  while (at > 0 && (nodes[at - 1]?.nodeId ?? 0) < node.nodeId) at--;
  nodes.splice(at, 0, node);
}
