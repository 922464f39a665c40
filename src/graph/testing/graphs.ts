import { type JobConfig, type JobGraph, jobGraphSchema, type Partitioner } from '../../contracts/job-graph.ts';
import { asJobId } from '../../kernel/ids.ts';
import { translateStreamGraph } from '../job-plan.ts';
import { defaultMaxParallelism } from '../max-parallelism.ts';
import type { StreamEdge, StreamGraph, StreamNode } from '../stream-graph.ts';

/** StreamGraphs for tests, written as `nodes` and `edges` in as few words as they need. */

export const TEST_CONFIG: JobConfig = {
  checkpointing: {
    mode: 'EXACTLY_ONCE',
    timeoutMs: 600_000,
    minPauseMs: 0,
    maxConcurrent: 1,
    tolerableFailedCheckpoints: 0,
    numRetained: 1,
    externalizedRetention: 'NO_EXTERNALIZED_CHECKPOINTS',
    unaligned: false,
    alignedTimeoutMs: 0,
  },
  restartStrategy: { type: 'none' },
  bufferTimeoutMs: 20,
  recoveryFallback: 'none',
  userConfig: {},
};

export type NodeSpec = Partial<StreamNode<undefined>> & { readonly nodeId: number };
export type EdgeSpec = readonly [from: number, to: number, partitioner?: Partitioner, inputIndex?: number];

export function streamGraph(nodes: readonly NodeSpec[], edges: readonly EdgeSpec[]): StreamGraph<undefined> {
  const read = new Set(edges.map(([, to]) => to));
  const full = nodes.map((spec): StreamNode<undefined> => {
    const kind = spec.kind ?? (read.has(spec.nodeId) ? 'map' : 'source');
    const parallelism = spec.parallelism ?? 1;
    return {
      kind,
      name: `${kind} ${spec.nodeId}`,
      uid: undefined,
      parallelism,
      maxParallelism: defaultMaxParallelism(parallelism),
      slotSharingGroup: 'default',
      chaining: 'always',
      twoPhaseCommit: false,
      definition: undefined,
      ...spec,
    };
  });
  return { name: 'test', nodes: full, edges: edges.map(toEdge), config: TEST_CONFIG };
}

function toEdge([sourceNode, targetNode, partitioner = 'FORWARD', inputIndex = 0]: EdgeSpec): StreamEdge {
  const keySelector = partitioner === 'HASH' ? (value: unknown) => value : undefined;
  return { sourceNode, targetNode, inputIndex, partitioner, keySelector };
}

/** The JobGraph as it would be stored, checked against its schema. */
export function jobGraph(graph: StreamGraph<undefined>): JobGraph {
  return jobGraphSchema.parse({
    ...translateStreamGraph(graph).plan,
    jobId: asJobId('0'.repeat(32)),
    bundle: { kind: 'inline', programId: 'test' },
    submittedWallMs: 0,
  });
}
