import type { OperatorDefinition } from '../api/operator-definition.ts';
import { type SplitsByNode, translateStreamGraph } from '../graph/job-plan.ts';
import type { StreamGraph, StreamNode } from '../graph/stream-graph.ts';
import { present } from '../kernel/assert.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import type { OperatorId } from '../kernel/ids.ts';
import type { UserProgram } from './user-program.ts';

/** A program's graph as a slot needs it: the plan, and the functions by the plan's ids. */
export function toUserProgram(graph: StreamGraph<OperatorDefinition>, splits?: SplitsByNode): UserProgram {
  const { plan, operatorIds, edgeIds } = translateStreamGraph(graph, splits);
  const operators = new Map<OperatorId, StreamNode<OperatorDefinition>>();
  for (const node of graph.nodes) operators.set(present(operatorIds.get(node.nodeId), 'operator id'), node);
  const keySelectors = new Map<string, (value: unknown) => unknown>();
  for (const [edge, id] of edgeIds) {
    if (edge.keySelector !== undefined) keySelectors.set(id, edge.keySelector);
  }
  return { plan, operators, keySelectors };
}

/** Asks every source once for its splits. Rejects with the source's own error: it says what is not there. */
export async function enumerateSplits(graph: StreamGraph<OperatorDefinition>): Promise<SplitsByNode> {
  const splits = new Map<number, readonly unknown[]>();
  for (const { nodeId, name, parallelism, definition } of graph.nodes) {
    if (definition.kind !== 'source') continue;
    const found = await definition.source.enumerateSplits({ parallelism });
    if (!Array.isArray(found)) throw new InvalidArgumentError(`"${name}": enumerateSplits() returned no array`);
    splits.set(nodeId, found);
  }
  return splits;
}
