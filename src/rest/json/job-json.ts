import type { JobDetailsView, JobOverviewView, StateCounts, VertexView } from '../../contracts/views.ts';
import type { JobGraph, JobVertex, Partitioner } from '../../contracts/job-graph.ts';
import type { IoMetrics } from '../../contracts/task.ts';
import type { VertexId } from '../../kernel/ids.ts';

/** Jobs under Flink's field names. */

export function jobOverviewJson(job: JobOverviewView) {
  return {
    jid: job.jobId,
    name: job.name,
    'start-time': job.startMs,
    'end-time': job.endMs,
    duration: job.durationMs,
    state: job.status,
    'last-modification': job.lastModificationMs,
    tasks: { total: total(job.tasks), ...lowerCase(job.tasks) },
    'pending-operators': 0,
    jobType: 'STREAMING',
    schedulerType: 'Default',
  };
}

export function jobDetailsJson(job: JobDetailsView, nowMs: number) {
  return {
    jid: job.jobId,
    name: job.name,
    isStoppable: false,
    state: job.status,
    'job-type': 'STREAMING',
    'start-time': job.startMs,
    'end-time': job.endMs,
    duration: job.durationMs,
    'last-modification': job.lastModificationMs,
    maxParallelism: job.maxParallelism,
    now: nowMs,
    timestamps: job.timestamps,
    tasks: taskSummary(job.tasks),
    vertices: job.vertices.map(vertexJson),
    'status-counts': statusCounts(job.vertices),
    plan: planJson(job.jobId, job.name, job.vertices, job.edges),
    'pending-operators': 0,
    restarts: job.restarts,
    'waiting-for': job.waitingFor ?? null,
  };
}

/** Flink's short form: seven counts over all subtasks, where everything before RUNNING is pending. */
function taskSummary(tasks: StateCounts) {
  return {
    total: total(tasks),
    pending: tasks.CREATED + tasks.SCHEDULED + tasks.DEPLOYING + tasks.INITIALIZING + tasks.RECONCILING,
    running: tasks.RUNNING,
    finished: tasks.FINISHED,
    canceling: tasks.CANCELING,
    canceled: tasks.CANCELED,
    failed: tasks.FAILED,
  };
}

function vertexJson(vertex: VertexView) {
  return {
    id: vertex.id,
    slotSharingGroupId: vertex.slotSharingGroup,
    name: vertex.name,
    maxParallelism: vertex.maxParallelism,
    parallelism: vertex.parallelism,
    status: vertex.status,
    'start-time': vertex.startMs,
    'end-time': vertex.endMs,
    duration: vertex.durationMs,
    tasks: vertex.tasks,
    metrics: ioJson(vertex.io),
  };
}

export function vertexDetailsJson(vertex: VertexView, nowMs: number) {
  return {
    id: vertex.id,
    name: vertex.name,
    parallelism: vertex.parallelism,
    maxParallelism: vertex.maxParallelism,
    now: nowMs,
    subtasks: vertex.subtasks.map((subtask) => ({
      subtask: subtask.index,
      status: subtask.state,
      attempt: subtask.attemptNumber,
      endpoint: subtask.host ?? '(unassigned)',
      'taskmanager-id': subtask.taskManagerId ?? '(unassigned)',
      'start-time': subtask.startMs,
      'end-time': subtask.endMs,
      duration: subtask.startMs < 0 ? -1 : (subtask.endMs < 0 ? nowMs : subtask.endMs) - subtask.startMs,
      metrics: ioJson(subtask.io),
    })),
  };
}

function ioJson(io: IoMetrics) {
  return {
    'read-bytes': io.readBytes,
    'read-bytes-complete': true,
    'write-bytes': io.writeBytes,
    'write-bytes-complete': true,
    'read-records': io.readRecords,
    'read-records-complete': true,
    'write-records': io.writeRecords,
    'write-records-complete': true,
    'accumulated-backpressured-time': Math.round(io.backPressuredMs),
    'accumulated-idle-time': Math.round(io.idleMs),
    'accumulated-busy-time': io.busyMs,
  };
}

interface PlanVertex {
  readonly id: VertexId;
  readonly name: string;
  readonly parallelism: number;
}

interface PlanEdge {
  readonly source: VertexId;
  readonly target: VertexId;
  readonly partitioner: Partitioner;
}

export function planJson(jobId: string, name: string, vertices: readonly PlanVertex[], edges: readonly PlanEdge[]) {
  return {
    jid: jobId,
    name,
    type: 'STREAMING',
    nodes: vertices.map((vertex) => {
      const inputs = edges.filter((edge) => edge.target === vertex.id);
      return {
        id: vertex.id,
        parallelism: vertex.parallelism,
        operator: '',
        operator_strategy: '',
        description: vertex.name,
        ...(inputs.length === 0
          ? {}
          : {
              inputs: inputs.map((edge, num) => ({
                num,
                id: edge.source,
                ship_strategy: edge.partitioner,
                exchange: 'pipelined_bounded',
              })),
            }),
        optimizer_properties: {},
      };
    }),
  };
}

export function graphPlanJson(graph: JobGraph) {
  const vertices: readonly JobVertex[] = graph.vertices;
  return { plan: planJson(graph.jobId, graph.name, vertices, graph.edges) };
}

export function jobConfigJson(job: JobDetailsView) {
  const { restartStrategy, userConfig } = job.config;
  return {
    jid: job.jobId,
    name: job.name,
    'execution-config': {
      'execution-mode': 'PIPELINED',
      'restart-strategy': describeRestartStrategy(restartStrategy),
      'job-parallelism': Math.max(...job.vertices.map((vertex) => vertex.parallelism), 1),
      'object-reuse-mode': true,
      'user-config': userConfig,
    },
  };
}

function describeRestartStrategy(strategy: JobDetailsView['config']['restartStrategy']): string {
  switch (strategy.type) {
    case 'none':
      return 'Restart deactivated.';
    case 'fixed-delay':
      return `Restart with fixed delay (${strategy.delayMs} ms). #${strategy.attempts} restart attempts.`;
    case 'exponential-delay':
      return `Restart with exponential delay: starting at ${strategy.initialBackoffMs} ms, increasing by ${strategy.backoffMultiplier}, with maximum ${strategy.maxBackoffMs} ms.`;
    case 'failure-rate':
      return `Failure rate restart with maximum of ${strategy.maxFailuresPerInterval} failures within interval ${strategy.failureRateIntervalMs} ms and fixed delay ${strategy.delayMs} ms.`;
  }
}

function statusCounts(vertices: readonly VertexView[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const vertex of vertices) counts[vertex.status] = (counts[vertex.status] ?? 0) + 1;
  return counts;
}

function total(tasks: StateCounts): number {
  return Object.values(tasks).reduce((sum, count) => sum + count, 0);
}

function lowerCase(tasks: StateCounts): Record<string, number> {
  return Object.fromEntries(Object.entries(tasks).map(([state, count]) => [state.toLowerCase(), count]));
}
