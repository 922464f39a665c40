import { present } from '../kernel/assert.ts';
import type { StreamEdge, StreamNode } from './stream-graph.ts';
import type { Topology } from './topology.ts';

/** Operators that run in one task and hand records on by function call. */
export interface Chain<Op> {
  readonly head: StreamNode<Op>;
  /** In topological order, the head first. */
  readonly nodes: readonly StreamNode<Op>[];
}

/** Flink's rules: the operator reads nothing else, record by record, at the same parallelism, and nobody objects. */
export function isChained<Op>(topology: Topology<Op>, edge: StreamEdge): boolean {
  const source = present(topology.byId.get(edge.sourceNode), 'source of an edge');
  const target = present(topology.byId.get(edge.targetNode), 'target of an edge');
  return (
    edge.partitioner === 'FORWARD' &&
    // Within a chain there is only one kind of result.
    edge.sideOutput === undefined &&
    topology.inputsOf(target.nodeId).length === 1 &&
    source.parallelism === target.parallelism &&
    // Not a rule of Flink's, where a chain silently takes the least: here a vertex has one number of key groups.
    source.maxParallelism === target.maxParallelism &&
    source.slotSharingGroup === target.slotSharingGroup &&
    source.chaining !== 'never' &&
    target.chaining === 'always'
  );
}

/** All chains, in topological order of their heads. */
export function findChains<Op>(topology: Topology<Op>): Chain<Op>[] {
  const chains = new Map<number, StreamNode<Op>[]>();
  const chainOf = new Map<number, StreamNode<Op>[]>();
  for (const node of topology.order) {
    const [input] = topology.inputsOf(node.nodeId);
    const joined = input !== undefined && isChained(topology, input) ? chainOf.get(input.sourceNode) : undefined;
    const chain = joined ?? [];
    if (joined === undefined) chains.set(node.nodeId, chain);
    chain.push(node);
    chainOf.set(node.nodeId, chain);
  }
  return [...chains.values()].map((nodes) => ({ head: present(nodes[0], 'head of a chain'), nodes }));
}

/** `Source: x -> Map -> (Filter, Sink: y)`, as Flink writes it. */
export function chainName<Op>(topology: Topology<Op>, chain: Chain<Op>, lengthMax: number): string {
  const members = new Set(chain.nodes.map((node) => node.nodeId));
  const nameFrom = (node: StreamNode<Op>): string => {
    const next = topology
      .outputsOf(node.nodeId)
      .filter((edge) => members.has(edge.targetNode) && isChained(topology, edge))
      .map((edge) => nameFrom(present(topology.byId.get(edge.targetNode), 'member of a chain')));
    if (next.length === 0) return node.name;
    return `${node.name} -> ${next.length === 1 ? next[0] : `(${next.join(', ')})`}`;
  };
  const name = nameFrom(chain.head);
  return name.length <= lengthMax ? name : `${name.slice(0, lengthMax - 1)}…`;
}
