import type { StreamNode } from '../graph/stream-graph.ts';
import type { JobGraph, JobPlan } from '../contracts/job-graph.ts';
import type { OperatorDefinition } from '../api/operator-definition.ts';
import type { OperatorId } from '../kernel/ids.ts';

/** A program that was run to get its graph: the plan, and the functions by operator id and edge id. */
export interface UserProgram {
  readonly plan: JobPlan;
  readonly operators: ReadonlyMap<OperatorId, StreamNode<OperatorDefinition>>;
  /** Key selectors of HASH edges by edge id. */
  readonly keySelectors: ReadonlyMap<string, (value: unknown) => unknown>;
}

/**
 * Gives a slot the functions of a job. Rejects with `PROGRAM` when the bundle does not load, throws,
 * or builds another graph than `graph.fingerprint` says (a `main` that is not deterministic).
 * Splits are not enumerated again: the slot takes them from the graph.
 */
export interface ProgramLoader {
  load(graph: JobGraph): Promise<UserProgram>;
}
