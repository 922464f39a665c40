import type { JobGraph, JobVertex } from '../contracts/job-graph.ts';
import { isTerminalExecutionState, isTerminalJobStatus } from '../contracts/job-status.ts';
import { type IoMetrics, NO_IO } from '../contracts/task.ts';
import type { CheckpointsView, ExceptionsView, JobDetailsView, SubtaskView, VertexView } from '../contracts/views.ts';
import type { JobState, TaskState } from './job-state.ts';
import { aggregateState, countStates } from './task-states.ts';

export interface JobViewInput {
  readonly graph: JobGraph;
  readonly state: JobState;
  /** By task index. */
  readonly io: readonly (IoMetrics | undefined)[];
  readonly exceptions: ExceptionsView;
  readonly checkpoints: CheckpointsView;
  readonly waitingFor: string | undefined;
  readonly wallMs: number;
}

/** Everything that people see of a job, as of now. */
export function viewJob(input: JobViewInput): JobDetailsView {
  const { graph, state, wallMs } = input;
  let first = 0;
  const vertices = graph.vertices.map((vertex) => {
    const view = viewVertex(vertex, state.tasks, input, first);
    first += vertex.parallelism;
    return view;
  });
  const ended = isTerminalJobStatus(state.status);
  const endMs = ended ? state.enteredMs[state.status] : -1;
  return {
    jobId: graph.jobId,
    name: graph.name,
    status: state.status,
    startMs: graph.submittedWallMs,
    endMs,
    durationMs: Math.max(0, (ended ? endMs : wallMs) - graph.submittedWallMs),
    lastModificationMs: lastModificationMs(state),
    tasks: countStates(state.tasks),
    maxParallelism: Math.max(...graph.vertices.map((vertex) => vertex.maxParallelism)),
    timestamps: state.enteredMs,
    vertices,
    edges: graph.edges.map(({ source, target, partitioner }) => ({ source, target, partitioner })),
    config: graph.config,
    exceptions: input.exceptions,
    checkpoints: input.checkpoints,
    restarts: state.restarts,
    waitingFor: input.waitingFor,
  };
}

function lastModificationMs(state: JobState): number {
  let last = Math.max(...Object.values(state.enteredMs));
  for (const task of state.tasks) for (const ms of Object.values(task.enteredMs)) last = Math.max(last, ms);
  return last;
}

function viewVertex(
  vertex: JobVertex,
  tasks: readonly TaskState[],
  { io, wallMs }: JobViewInput,
  first: number,
): VertexView {
  const own = tasks.slice(first, first + vertex.parallelism);
  const subtasks = own.map((task, index) => viewSubtask(task, index, io[first + index] ?? NO_IO));
  const counts = countStates(own);
  const starts = subtasks.map((subtask) => subtask.startMs).filter((ms) => ms >= 0);
  const startMs = starts.length === 0 ? -1 : Math.min(...starts);
  const ended = own.every((task) => isTerminalExecutionState(task.state));
  const endMs = ended ? Math.max(...subtasks.map((subtask) => subtask.endMs)) : -1;
  return {
    id: vertex.id,
    name: vertex.name,
    operators: vertex.operators.map(({ id }) => id),
    slotSharingGroup: vertex.slotSharingGroup,
    parallelism: vertex.parallelism,
    maxParallelism: vertex.maxParallelism,
    status: aggregateState(counts, vertex.parallelism),
    startMs,
    endMs,
    durationMs: startMs < 0 ? -1 : (ended ? endMs : wallMs) - startMs,
    tasks: counts,
    io: subtasks.map((subtask) => subtask.io).reduce(addIo, NO_IO),
    subtasks,
  };
}

function viewSubtask(task: TaskState, index: number, io: IoMetrics): SubtaskView {
  const { attempt, enteredMs, state } = task;
  return {
    index,
    state,
    attemptNumber: Math.max(0, task.lastAttemptNumber),
    attemptId: attempt?.attemptId,
    taskManagerId: attempt?.taskManagerId,
    host: attempt?.host,
    startMs: enteredMs.DEPLOYING ?? -1,
    endMs: isTerminalExecutionState(state) ? (enteredMs[state] ?? -1) : -1,
    io,
  };
}

function addIo(a: IoMetrics, b: IoMetrics): IoMetrics {
  return {
    readRecords: a.readRecords + b.readRecords,
    writeRecords: a.writeRecords + b.writeRecords,
    readBytes: a.readBytes + b.readBytes,
    writeBytes: a.writeBytes + b.writeBytes,
    backPressuredMs: a.backPressuredMs + b.backPressuredMs,
    idleMs: a.idleMs + b.idleMs,
    busyMs: a.busyMs + b.busyMs,
  };
}
