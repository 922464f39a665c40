import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import type { OperatorSnapshot } from '../contracts/state-handles.ts';
import type { TaskDeployment } from '../contracts/task.ts';
import { present } from '../kernel/assert.ts';
import type { VertexId } from '../kernel/ids.ts';
import { assignState, newOperatorsOf } from './assign-state.ts';

/** What each subtask restores, worked out vertex by vertex when first asked for. */
export function restoreTasks(
  graph: JobGraph,
  metadata: CheckpointMetadata,
): (vertexId: VertexId, subtaskIndex: number) => NonNullable<TaskDeployment['restore']> {
  interface Assigned {
    readonly bySubtask: readonly (readonly OperatorSnapshot[])[];
    readonly newOperators: NonNullable<TaskDeployment['restore']>['newOperators'];
  }
  const assigned = new Map<VertexId, Assigned>();
  const assign = (vertexId: VertexId): Assigned => {
    const vertex = present(
      graph.vertices.find((candidate) => candidate.id === vertexId),
      'vertex of the graph',
    );
    return { bySubtask: assignState(metadata, vertex), newOperators: newOperatorsOf(metadata, vertex) };
  };
  return (vertexId, subtaskIndex) => {
    let vertex = assigned.get(vertexId);
    if (vertex === undefined) {
      vertex = assign(vertexId);
      assigned.set(vertexId, vertex);
    }
    const { bySubtask, newOperators = [] } = vertex;
    return {
      checkpointId: metadata.checkpointId,
      operators: [...(bySubtask[subtaskIndex] ?? [])],
      ...(newOperators.length > 0 ? { newOperators } : {}),
    };
  };
}
