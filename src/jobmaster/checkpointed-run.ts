import type { CheckpointedRun } from '../checkpoint/checkpoint-driver.ts';
import type { TaskManagerGateway } from '../contracts/task-manager-gateway.ts';
import type { ExecutionPlan } from '../graph/execution-graph.ts';
import { present } from '../kernel/assert.ts';
import { upstreamOf } from '../graph/upstream.ts';
import { compareDeployments, type TaskManagerId } from '../kernel/ids.ts';
import type { JobState } from './job-state.ts';

/** What checkpoints need to know of the tasks: all, or while some restart the others. */
export function checkpointedRun(plan: ExecutionPlan, state: JobState): CheckpointedRun {
  const gateways = new Map<TaskManagerId, TaskManagerGateway>();
  for (const { slot } of state.slots.values()) gateways.set(slot.taskManagerId, slot.gateway);
  const tasks = plan.tasks.flatMap(({ vertexId, subtaskIndex, region }, index) => {
    if (state.restarting.has(region)) return [];
    const { attemptId, taskManagerId, deployment } = present(
      state.tasks[index]?.attempt,
      'attempt of a task that runs',
    );
    return {
      vertexId,
      subtaskIndex,
      attemptId,
      taskManagerId,
      deployment,
      upstream: upstreamOf(plan.graph, vertexId, subtaskIndex),
    };
  });
  const deployment = tasks.map((task) => task.deployment).reduce((a, b) => (compareDeployments(a, b) < 0 ? b : a));
  return { deployment, tasks, gateways };
}
