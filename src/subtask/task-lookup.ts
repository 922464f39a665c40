import type { JobEdge, JobVertex } from '../contracts/job-graph.ts';
import type { SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import type { OperatorId } from '../kernel/ids.ts';
import type { OperatorSite } from './operator-error.ts';

/** Throws `INVALID_ARGUMENT` for a task that its graph does not have, before anything is made of it. */
export function checkTask(deployment: SlotDeployment, task: TaskDeployment): void {
  vertexOf(deployment, task);
  for (const { edgeId } of task.outputs) edgeOf(deployment, edgeId);
  for (const { edgeId } of task.inputs) edgeOf(deployment, edgeId);
}

export function vertexOf(deployment: SlotDeployment, task: TaskDeployment): JobVertex {
  const vertex = deployment.graph.vertices.find(({ id }) => id === task.vertexId);
  if (vertex === undefined) throw new InvalidArgumentError(`the graph has no vertex ${task.vertexId}`);
  if (task.subtaskIndex >= vertex.parallelism) {
    throw new InvalidArgumentError(`there is no subtask ${taskNameOf(vertex, task.subtaskIndex)}`);
  }
  return vertex;
}

export function edgeOf(deployment: SlotDeployment, edgeId: string): JobEdge {
  const edge = deployment.graph.edges.find(({ id }) => id === edgeId);
  if (edge === undefined) throw new InvalidArgumentError(`the graph has no edge ${edgeId}`);
  return edge;
}

/** As Flink shows it: counted from 1. */
export function taskNameOf(vertex: JobVertex, subtaskIndex: number): string {
  return `${vertex.name} (${subtaskIndex + 1}/${vertex.parallelism})`;
}

export function siteOf(vertex: JobVertex, subtaskIndex: number, operatorId: OperatorId): OperatorSite {
  const position = vertex.operators.findIndex(({ id }) => id === operatorId);
  return {
    name: vertex.operators[position]?.name ?? operatorId,
    position,
    chainLength: vertex.operators.length,
    taskName: taskNameOf(vertex, subtaskIndex),
  };
}
