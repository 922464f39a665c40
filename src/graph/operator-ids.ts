import { present } from '../kernel/assert.ts';
import { stableId } from '../kernel/digest.ts';
import { asOperatorId, type OperatorId } from '../kernel/ids.ts';
import type { Topology } from './topology.ts';

/**
 * The ids under which operators find their state again.
 *
 * With a uid the id depends on the uid alone. Without, it is a digest of the operator's kind, of how its
 * inputs are read, and of its number among operators that agree in all that. Flink numbers over the
 * whole graph instead, so there an operator added anywhere may change ids everywhere; here only those
 * that read what changed. Names, parallelism and functions never matter.
 */
export function operatorIds<Op>(topology: Topology<Op>): Map<number, OperatorId> {
  const ids = new Map<number, OperatorId>();
  const alike = new Map<string, number>();
  for (const node of topology.order) {
    if (node.uid !== undefined) {
      ids.set(node.nodeId, asOperatorId(stableId('uid', node.uid)));
      continue;
    }
    // REBALANCE and FORWARD replace each other when parallelism changes, so the partitioner is not part of it.
    const inputs = topology
      .inputsOf(node.nodeId)
      .map((edge) => `${edge.inputIndex}:${present(ids.get(edge.sourceNode), 'id of an input')}`);
    const shape = stableId('shape', node.kind, ...inputs);
    const number = alike.get(shape) ?? 0;
    alike.set(shape, number + 1);
    ids.set(node.nodeId, asOperatorId(stableId('operator', shape, number)));
  }
  return ids;
}
