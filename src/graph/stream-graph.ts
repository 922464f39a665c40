import type { JobConfig, Partitioner } from '../contracts/job-graph.ts';

/**
 * The StreamGraph: the program as written, one node per operator, before chaining. Generic over the
 * operator definition so that this room needs to know nothing of functions.
 */
export interface StreamNode<Op> {
  /** 1, 2, … in order of creation: deterministic for a deterministic `main`. */
  readonly nodeId: number;
  readonly kind: string;
  readonly name: string;
  readonly uid: string | undefined;
  readonly parallelism: number;
  readonly maxParallelism: number;
  readonly slotSharingGroup: string;
  /** False when the author called `disableChaining()`; `startNewChain` cuts only towards the input. */
  readonly chaining: 'always' | 'head' | 'never';
  readonly twoPhaseCommit: boolean;
  readonly definition: Op;
}

export interface StreamEdge {
  readonly sourceNode: number;
  readonly targetNode: number;
  readonly inputIndex: number;
  readonly partitioner: Partitioner;
  /** For HASH: selects the key of a record. Held here for the slot; never serialised. */
  readonly keySelector: ((value: unknown) => unknown) | undefined;
  /** The side output that the edge carries; undefined: the operator's results. */
  readonly sideOutput?: string;
}

export interface StreamGraph<Op> {
  readonly name: string;
  readonly nodes: readonly StreamNode<Op>[];
  readonly edges: readonly StreamEdge[];
  readonly config: JobConfig;
}
