import type { JobGraph } from '../contracts/job-graph.ts';
import { present } from '../kernel/assert.ts';
import type { VertexId } from '../kernel/ids.ts';
import { producersOf } from './channels.ts';

/** Whom a subtask reads from: all subtasks of a vertex (its id alone), or some of them. */
export type Upstream = VertexId | { readonly vertexId: VertexId; readonly subtasks: readonly number[] };

export function upstreamOf(graph: JobGraph, vertexId: VertexId, subtaskIndex: number): Upstream[] {
  const parallelismOf = (id: VertexId) =>
    present(
      graph.vertices.find((vertex) => vertex.id === id),
      'vertex of an edge',
    ).parallelism;
  return graph.edges
    .filter(({ target }) => target === vertexId)
    .map(({ source, partitioner }) => {
      if (partitioner !== 'FORWARD' && partitioner !== 'RESCALE') return source;
      const sizes = { producers: parallelismOf(source), consumers: parallelismOf(vertexId) };
      return { vertexId: source, subtasks: producersOf(partitioner, sizes, subtaskIndex) };
    });
}
