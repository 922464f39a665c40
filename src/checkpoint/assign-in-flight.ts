import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobEdge, JobGraph, JobVertex } from '../contracts/job-graph.ts';
import { keyGroupRange } from '../contracts/key-groups.ts';
import { type InFlightData, parseInFlightChannel } from '../contracts/state-handles.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';

/**
 * Who processes records that were in flight when an unaligned checkpoint was taken. Pure, like the assignment of
 * state.
 *
 * Batches go whole to the consumers that may need them. Where keys have moved several get the same batch, and each
 * keeps the records of its own keys: every record is processed by exactly one. Batches of one channel stay together
 * and in order, unless records are dealt out anew by number (REBALANCE), where no order was ever promised.
 */
export function assignInFlight(
  metadata: CheckpointMetadata,
  graph: JobGraph,
  vertex: JobVertex,
  subtaskIndex: number,
): InFlightData[] {
  return (metadata.inFlight ?? []).flatMap((data) => {
    const edge = graph.edges.find(({ id }) => id === data.edgeId);
    if (edge?.target !== vertex.id) return [];
    const states = data.batches.states.filter(({ name }) =>
      isReadBy(data, edge, vertex, subtaskIndex, parseInFlightChannel(name).consumer),
    );
    return states.length === 0 ? [] : [{ ...data, batches: { ...data.batches, states } }];
  });
}

function isReadBy(
  data: InFlightData,
  { partitioner }: JobEdge,
  { parallelism, maxParallelism }: JobVertex,
  subtaskIndex: number,
  consumer: number,
): boolean {
  const unchanged = data.consumers === parallelism && data.partitioner === partitioner;
  if (unchanged) return consumer === subtaskIndex;
  switch (partitioner) {
    case 'HASH': {
      if (data.partitioner !== 'HASH' || data.maxParallelism !== maxParallelism) return true;
      const had = keyGroupRange(maxParallelism, data.consumers, consumer);
      const has = keyGroupRange(maxParallelism, parallelism, subtaskIndex);
      return had.first <= has.last && has.first <= had.last;
    }
    case 'REBALANCE':
    case 'SHUFFLE':
      return consumer % parallelism === subtaskIndex;
    default:
      return subtaskIndex === 0;
  }
}

/** Throws `INVALID_ARGUMENT` when records in flight have no consumer in `graph` that could process them. */
export function checkInFlight(
  metadata: CheckpointMetadata,
  graph: JobGraph,
  { allowNonRestoredState }: { readonly allowNonRestoredState: boolean },
): void {
  for (const { edgeId } of metadata.inFlight ?? []) {
    const edge = graph.edges.find(({ id }) => id === edgeId);
    if (edge === undefined) {
      if (allowNonRestoredState) continue;
      throw refused(metadata, `on edge ${edgeId}, which the job does not have any more`);
    }
    const { partitioner } = edge;
    if (partitioner !== 'FORWARD' && partitioner !== 'RESCALE' && partitioner !== 'BROADCAST') continue;
    throw refused(metadata, `on edge ${edgeId}, which is ${edge.partitioner} now and cannot take them over`);
  }
}

function refused({ checkpointId, jobId }: CheckpointMetadata, what: string): InvalidArgumentError {
  return new InvalidArgumentError(`checkpoint ${checkpointId} of job ${jobId} has records in flight ${what}`, {
    hint: 'Restore from a savepoint, which holds none, or let the job as it was take an aligned checkpoint first.',
  });
}
