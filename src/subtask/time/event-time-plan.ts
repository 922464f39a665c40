import type { OperatorDefinition } from '../../api/operator-definition.ts';
import type { JobGraph, OperatorDescriptor } from '../../contracts/job-graph.ts';
import type { OperatorId, VertexId } from '../../kernel/ids.ts';

/**
 * Where in a job event time is made, carried and used. What is on no way from an assigner to an operator
 * that looks at time carries none: its records stay as small and its chains as fast as without.
 */
export interface EventTimePlan {
  /** Edges whose batches carry timestamps, and on which watermarks travel. */
  readonly edges: ReadonlySet<string>;
  /** Vertices with operators that make, use or pass on event time, or use timers. */
  readonly vertices: ReadonlySet<VertexId>;
  /** Operators that make timestamps for someone. */
  readonly assigners: ReadonlySet<OperatorId>;
}

/** Operators that look at timestamps, watermarks or timers. */
export function usesTime(definition: OperatorDefinition | undefined): boolean {
  return definition?.kind === 'process' || definition?.kind === 'coProcess' || definition?.kind === 'window';
}

function makesTime(definition: OperatorDefinition | undefined): boolean {
  return definition?.kind === 'timestamps' || (definition?.kind === 'source' && definition.watermarks !== undefined);
}

export function planEventTime(
  graph: Pick<JobGraph, 'vertices' | 'edges'>,
  definitionOf: (operatorId: OperatorId) => OperatorDefinition | undefined,
): EventTimePlan {
  const operators = graph.vertices.flatMap((vertex) => vertex.operators);
  const links = [
    ...operators.flatMap(({ id, inputs }) => inputs.map((input) => ({ from: input, to: id }))),
    ...graph.edges.map(({ sourceOperator, targetOperator }) => ({ from: sourceOperator, to: targetOperator })),
  ];
  const ids = (chosen: (definition: OperatorDefinition | undefined) => boolean) =>
    operators.filter(({ id }: OperatorDescriptor) => chosen(definitionOf(id))).map(({ id }) => id);
  const stamped = closure(
    ids(makesTime),
    links.map(({ from, to }) => [from, to]),
  );
  const wanted = closure(
    ids(usesTime),
    links.map(({ from, to }) => [to, from]),
  );
  const edges = graph.edges.filter(
    ({ sourceOperator, targetOperator }) => stamped.has(sourceOperator) && wanted.has(targetOperator),
  );
  const assigners = ids(makesTime).filter((id) => wanted.has(id));
  const using = new Set([...ids(usesTime), ...assigners]);
  const vertices = graph.vertices.filter(
    (vertex) => vertex.operators.some(({ id }) => using.has(id)) || edges.some(({ target }) => target === vertex.id),
  );
  return {
    edges: new Set(edges.map(({ id }) => id)),
    vertices: new Set(vertices.map(({ id }) => id)),
    assigners: new Set(assigners),
  };
}

/** Everything that can be reached along the links. */
function closure(from: readonly OperatorId[], links: readonly (readonly [OperatorId, OperatorId])[]): Set<OperatorId> {
  const found = new Set(from);
  const waiting = [...from];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const [start, end] of links) {
      if (start !== next || found.has(end)) continue;
      found.add(end);
      waiting.push(end);
    }
  }
  return found;
}
