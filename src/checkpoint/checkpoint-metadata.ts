import { CHECKPOINT_METADATA_FORMAT, type CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobGraph, JobVertex } from '../contracts/job-graph.ts';
import { handlesIn, type InFlightData, type OperatorSnapshot } from '../contracts/state-handles.ts';
import { taskKey } from '../graph/execution-graph.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { PendingCheckpoint, Run } from './coordinator-state.ts';

export interface MetadataInput {
  readonly graph: JobGraph;
  readonly run: Run;
  /** With every acknowledgement that it needs. */
  readonly checkpoint: PendingCheckpoint;
  /** The last completed checkpoint in which the tasks of the run took part: what finished ones left behind. */
  readonly previous: CheckpointMetadata | undefined;
  readonly triggerWallMs: number;
  readonly completedWallMs: number;
}

/** All that is needed to restore, from the acknowledgements of all subtasks. */
export function buildMetadata(input: MetadataInput): CheckpointMetadata {
  const { graph, checkpoint } = input;
  const inFlight = inFlightOf(checkpoint);
  return {
    formatVersion: inFlight.length > 0 ? CHECKPOINT_METADATA_FORMAT : 1,
    jobId: graph.jobId,
    checkpointId: checkpoint.id,
    kind: checkpoint.kind,
    deployment: checkpoint.deployment,
    ...taskDeploymentsOf(input),
    triggerWallMs: input.triggerWallMs,
    completedWallMs: input.completedWallMs,
    stateBytes: checkpoint.acks.reduce((sum, ack) => sum + (ack?.stateBytes ?? 0), 0),
    graphFingerprint: graph.fingerprint,
    operators: graph.vertices.flatMap((vertex) => {
      const perSubtask = Array.from({ length: vertex.parallelism }, (_, i) => snapshotsOf(input, vertex, i));
      return vertex.operators.map(({ id: operatorId }) => ({
        operatorId,
        parallelism: vertex.parallelism,
        maxParallelism: vertex.maxParallelism,
        subtasks: perSubtask.map(
          (snapshots) =>
            snapshots.find((snapshot) => snapshot.operatorId === operatorId) ?? { operatorId, keyed: [], operator: [] },
        ),
      }));
    }),
    ...(inFlight.length > 0 ? { inFlight } : {}),
  };
}

/** Only what cannot be known otherwise: nearly always all tasks are of one deployment. */
function taskDeploymentsOf({ graph, run, checkpoint }: MetadataInput): Pick<CheckpointMetadata, 'taskDeployments'> {
  if (run.tasks.every((task) => task.deployment === checkpoint.deployment)) return {};
  const of = (vertex: JobVertex, i: number) => {
    const index = run.indexOf.get(taskKey(vertex.id, i));
    return (index === undefined ? undefined : run.tasks[index]?.deployment) ?? checkpoint.deployment;
  };
  return {
    taskDeployments: Object.fromEntries(
      graph.vertices.map((vertex) => [vertex.id, Array.from({ length: vertex.parallelism }, (_, i) => of(vertex, i))]),
    ),
  };
}

/** What was already with the consumers is older than what producers still held. */
function inFlightOf({ acks }: PendingCheckpoint): InFlightData[] {
  const all = acks.flatMap((ack) => ack?.inFlight ?? []);
  return [...all.filter(({ side }) => side === 'INPUT'), ...all.filter(({ side }) => side === 'OUTPUT')];
}

function snapshotsOf(input: MetadataInput, vertex: JobVertex, subtaskIndex: number): readonly OperatorSnapshot[] {
  const { run, checkpoint, previous } = input;
  const operators = new Set(vertex.operators.map((operator) => operator.id));
  const index = run.indexOf.get(taskKey(vertex.id, subtaskIndex));
  const ack = index === undefined ? undefined : checkpoint.acks[index];
  const what = `checkpoint ${checkpoint.id}: ${vertex.name} (${subtaskIndex + 1}/${vertex.parallelism})`;
  if (ack !== undefined) {
    const stranger = ack.operators.find((snapshot) => !operators.has(snapshot.operatorId));
    if (stranger === undefined) return ack.operators;
    // Completing it would lose that state on restore without anybody noticing.
    throw new MillraceError('INTERNAL', `${what} acknowledged state of operator ${stranger.operatorId}, not its own`);
  }
  if (previous === undefined) throw new MillraceError('INTERNAL', `${what} has left no state`);
  return previous.operators
    .filter((operator) => operators.has(operator.operatorId))
    .flatMap((operator) => operator.subtasks[subtaskIndex] ?? []);
}

/** The keys of all objects that a part of a checkpoint refers to. */
export function objectKeysOf(part: Parameters<typeof handlesIn>[0]): string[] {
  return handlesIn(part).flatMap((handle) => (handle.kind === 'object' ? [handle.key] : []));
}

export function objectKeysOfMetadata({ operators, inFlight }: CheckpointMetadata): string[] {
  return objectKeysOf({ operators: operators.flatMap((operator) => operator.subtasks), inFlight });
}
