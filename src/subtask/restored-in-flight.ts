import type { SlotDeployment, TaskDeployment } from '../contracts/task.ts';
import { type InFlightChannel, parseInFlightChannel } from '../contracts/state-handles.ts';
import { CorruptError } from '../kernel/errors.ts';
import type { Random } from '../kernel/random.ts';
import type { UserProgram } from '../program/user-program.ts';
import type { BatchReader } from './batch-reader.ts';
import { encodeRecords, type InFlightEdge, mayOvertakeOn, type StoredBatch } from './in-flight.ts';
import type { Overtaking, RestoredBatch } from './input-gate.ts';
import { createPartitioner } from './partitioner.ts';
import type { OperatorScope, StateBackendFactory } from './state-backend-factory.ts';
import { edgeOf, vertexOf } from './task-lookup.ts';

/** Which edge and producer each input channel of a task has; undefined when some edge lets no barrier overtake. */
export function originsOf(deployment: SlotDeployment, task: TaskDeployment): Overtaking['origins'] | undefined {
  const { checkpointing } = deployment.graph.config;
  if (!checkpointing.unaligned || checkpointing.mode !== 'EXACTLY_ONCE') return undefined;
  const edges = inFlightEdges(deployment, task);
  const origins = task.inputs.flatMap(({ edgeId, producerSubtask }) => {
    const edge = edges.get(edgeId);
    return edge === undefined ? [] : [{ edge, producer: producerSubtask, consumer: task.subtaskIndex }];
  });
  // A task that aligns one of its inputs must align all: its snapshot can be taken once only.
  return origins.length === task.inputs.length ? origins : undefined;
}

function inFlightEdges(deployment: SlotDeployment, task: TaskDeployment): Map<string, InFlightEdge> {
  const { parallelism, maxParallelism } = vertexOf(deployment, task);
  const edges = new Map<string, InFlightEdge>();
  for (const { edgeId } of task.inputs) {
    const { partitioner } = edgeOf(deployment, edgeId);
    if (mayOvertakeOn(partitioner)) edges.set(edgeId, { edgeId, partitioner, parallelism, maxParallelism });
  }
  return edges;
}

/**
 * Reads what was in flight to this task. Where keys have moved, several subtasks read the same batches and each
 * keeps the records that are now its own; what is kept is encoded anew, so that it can be stored again as it is.
 */
export async function readInFlight(
  deps: {
    readonly stateBackends: StateBackendFactory;
    readonly scope: OperatorScope;
    readonly program: UserProgram;
    readonly random: Random;
    readonly reader: BatchReader;
    readonly signal: AbortSignal;
  },
  deployment: SlotDeployment,
  task: TaskDeployment,
): Promise<readonly RestoredBatch[]> {
  const edges = inFlightEdges(deployment, task);
  const restored: RestoredBatch[] = [];
  for (const { edgeId, partitioner, consumers, batches } of task.restore?.inFlight ?? []) {
    const edge = edges.get(edgeId);
    const channel = task.inputs.findIndex((input) => input.edgeId === edgeId);
    if (edge === undefined || channel < 0) throw new CorruptError(`edge ${edgeId} has records in flight and no reader`);
    const { stateBackends, scope, signal } = deps;
    const state = await stateBackends.createOperatorStateBackend({ scope, restore: [batches], signal });
    const moved = edge.partitioner === 'HASH' && (partitioner !== 'HASH' || consumers !== edge.parallelism);
    const isOwn = moved ? ownKeys(deps, edge, task.subtaskIndex) : undefined;
    for (const { name } of batches.states) {
      const { producer }: InFlightChannel = parseInFlightChannel(name);
      for (const batch of state.restored<StoredBatch>(name)) {
        const kept = isOwn === undefined ? batch : filtered(batch, deps.reader, isOwn);
        if (kept !== undefined) restored.push({ edge, producer, consumer: task.subtaskIndex, channel, batch: kept });
      }
    }
  }
  return restored;
}

function ownKeys(
  { program, random }: { readonly program: UserProgram; readonly random: Random },
  edge: InFlightEdge,
  subtaskIndex: number,
): (record: unknown) => boolean {
  const { parallelism, maxParallelism } = edge;
  const select = createPartitioner({
    partitioner: 'HASH',
    random,
    subpartitions: parallelism,
    subtaskIndex,
    maxParallelism,
    parallelism,
    keySelector: program.keySelectors.get(edge.edgeId),
  });
  return (record) => select !== 'all' && select(record) === subtaskIndex;
}

function filtered(
  batch: StoredBatch,
  reader: BatchReader,
  isOwn: (record: unknown) => boolean,
): StoredBatch | undefined {
  const { codec, payload } = batch;
  const read = reader.read({ kind: 'records', codec, payload, records: 0 }, 'a checkpoint');
  const { records } = read;
  const timestamps = batch.timestamps ?? read.timestamps;
  const kept = records.flatMap((record, i) => (isOwn(record) ? [i] : []));
  if (kept.length === 0) return undefined;
  return encodeRecords(
    kept.map((i) => records[i]),
    timestamps === undefined ? undefined : kept.map((i) => timestamps[i] ?? Number.NaN),
  );
}
