import { assignState } from '../checkpoint/assign-state.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { OperatorSnapshot } from '../contracts/state-handles.ts';
import type { TaskDeployment } from '../contracts/task.ts';
import { present } from '../kernel/assert.ts';
import type { VertexId } from '../kernel/ids.ts';
import type { RestorePoint } from './job-state.ts';

/** The state of each subtask, worked out vertex by vertex when first asked for. */
export function restorer(
  graph: JobGraph,
  restore: RestorePoint,
): (vertexId: VertexId, subtaskIndex: number) => TaskDeployment['restore'] {
  if (restore.kind === 'fresh') return () => undefined;
  const { metadata } = restore.checkpoint;
  const { allowNonRestoredState } = restore;
  const assigned = new Map<VertexId, readonly (readonly OperatorSnapshot[])[]>();
  return (vertexId, subtaskIndex) => {
    let bySubtask = assigned.get(vertexId);
    if (bySubtask === undefined) {
      const vertex = present(
        graph.vertices.find((candidate) => candidate.id === vertexId),
        'vertex of the graph',
      );
      bySubtask = assignState(metadata, vertex, { allowNonRestoredState });
      assigned.set(vertexId, bySubtask);
    }
    return { checkpointId: metadata.checkpointId, operators: [...(bySubtask[subtaskIndex] ?? [])] };
  };
}
