import fc from 'fast-check';
import type { Partitioner } from '../../contracts/job-graph.ts';
import type { StreamGraph } from '../stream-graph.ts';
import { type EdgeSpec, type NodeSpec, streamGraph } from './graphs.ts';

const CHAINING = ['always', 'always', 'always', 'head', 'never'] as const;
const KINDS = ['map', 'flatMap', 'filter', 'reduce', 'sink'] as const;
const PARTITIONERS: readonly Partitioner[] = ['FORWARD', 'HASH', 'REBALANCE', 'RESCALE', 'BROADCAST', 'GLOBAL'];

const nodeShape = fc.record({
  source: fc.boolean(),
  kind: fc.constantFrom(...KINDS),
  parallelism: fc.constantFrom(1, 1, 2, 3, 5),
  chaining: fc.constantFrom(...CHAINING),
  group: fc.constantFrom('default', 'default', 'default', 'other'),
  uid: fc.boolean(),
  inputs: fc.array(fc.record({ from: fc.nat(), partitioner: fc.constantFrom(...PARTITIONERS) }), {
    minLength: 1,
    maxLength: 3,
  }),
});

/** Any graph that the API could build: nodes read earlier nodes, FORWARD only between equal parallelism. */
export function anyStreamGraph(): fc.Arbitrary<StreamGraph<undefined>> {
  return fc.array(nodeShape, { minLength: 1, maxLength: 10 }).map((shapes) => {
    const nodes: NodeSpec[] = [];
    const edges: EdgeSpec[] = [];
    shapes.forEach((shape, index) => {
      const nodeId = index + 1;
      const isSource = index === 0 || shape.source;
      nodes.push({
        nodeId,
        kind: isSource ? 'source' : shape.kind,
        name: `node ${nodeId}`,
        uid: shape.uid ? `uid ${nodeId}` : undefined,
        parallelism: shape.parallelism,
        chaining: shape.chaining,
        slotSharingGroup: shape.group,
      });
      if (isSource) return;
      for (const input of shape.inputs) {
        const from = input.from % index;
        const equal = shapes[from]?.parallelism === shape.parallelism;
        const partitioner = input.partitioner === 'FORWARD' && !equal ? 'REBALANCE' : input.partitioner;
        edges.push([from + 1, nodeId, partitioner]);
      }
    });
    return streamGraph(nodes, edges);
  });
}
