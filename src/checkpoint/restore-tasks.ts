import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobGraph, JobVertex } from '../contracts/job-graph.ts';
import type { OperatorSnapshot } from '../contracts/state-handles.ts';
import type { TaskDeployment } from '../contracts/task.ts';
import { present } from '../kernel/assert.ts';
import type { VertexId } from '../kernel/ids.ts';
import { assignInFlight } from './assign-in-flight.ts';
import { assignState, newOperatorsOf } from './assign-state.ts';

/** What each subtask restores, worked out vertex by vertex when first asked for. */
export function restoreTasks(
  graph: JobGraph,
  metadata: CheckpointMetadata,
): (vertexId: VertexId, subtaskIndex: number) => NonNullable<TaskDeployment['restore']> {
  interface Assigned {
    readonly vertex: JobVertex;
    readonly bySubtask: readonly (readonly OperatorSnapshot[])[];
    readonly newOperators: NonNullable<TaskDeployment['restore']>['newOperators'];
  }
  const assigned = new Map<VertexId, Assigned>();
  const assign = (vertexId: VertexId): Assigned => {
    const vertex = present(
      graph.vertices.find((candidate) => candidate.id === vertexId),
      'vertex of the graph',
    );
    return { vertex, bySubtask: assignState(metadata, vertex), newOperators: newOperatorsOf(metadata, vertex) };
  };
  return (vertexId, subtaskIndex) => {
    let found = assigned.get(vertexId);
    if (found === undefined) {
      found = assign(vertexId);
      assigned.set(vertexId, found);
    }
    const { vertex, bySubtask, newOperators = [] } = found;
    const inFlight = assignInFlight(metadata, graph, vertex, subtaskIndex);
    return {
      checkpointId: metadata.checkpointId,
      operators: [...(bySubtask[subtaskIndex] ?? [])],
      ...(newOperators.length > 0 ? { newOperators } : {}),
      ...(inFlight.length > 0 ? { inFlight } : {}),
    };
  };
}
