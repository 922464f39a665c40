import type { Partitioner } from '../contracts/partitioner.ts';
import { type InFlightData, inFlightChannelName } from '../contracts/state-handles.ts';
import type { RecordsMessage } from '../exchange/channel-message.ts';
import { rowCodec } from '../exchange/row-codec.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { OperatorScope, StateBackendFactory } from './state-backend-factory.ts';

/**
 * Records in flight: what a barrier overtook in the queues of a task, as it is stored with the checkpoint.
 *
 *   F1. A record that was emitted before its producer's snapshot and not processed before its consumer's is in
 *       exactly one of: the producer's output, the consumer's input.
 *   F2. Batches of one channel keep their order, those of the input before those of the output.
 */
export interface StoredBatch {
  readonly codec: number;
  readonly payload: Uint8Array;
  /** By record, where the codec carries none itself. */
  readonly timestamps?: readonly number[];
}

/** An edge that barriers may overtake on. */
export interface InFlightEdge {
  readonly edgeId: string;
  readonly partitioner: Partitioner;
  /** Of the target. */
  readonly parallelism: number;
  readonly maxParallelism: number;
}

export interface InFlightBatch {
  readonly edge: InFlightEdge;
  readonly producer: number;
  readonly consumer: number;
  readonly batch: StoredBatch;
}

/**
 * On these every producer may send every consumer any record, so that records in flight can be dealt out anew. The
 * others bind who reads to who wrote, or must be read by all alike: there barriers wait their turn. As in Flink.
 */
export function mayOvertakeOn(partitioner: Partitioner): boolean {
  return partitioner !== 'FORWARD' && partitioner !== 'RESCALE' && partitioner !== 'BROADCAST';
}

/** Copies of a message's records, if need be: their consumer may change them. */
export function storedBatch({ codec, payload, copies }: RecordsMessage): StoredBatch {
  return copies === undefined ? { codec, payload } : encodeRecords(copies, undefined);
}

export function encodeRecords(records: readonly unknown[], timestamps: ArrayLike<number> | undefined): StoredBatch {
  const encoder = rowCodec.createEncoder();
  for (const record of records) encoder.append(record);
  const payload = encoder.finish();
  return { codec: rowCodec.id, payload, ...(timestamps === undefined ? {} : { timestamps: Array.from(timestamps) }) };
}

/** What is gathered of one checkpoint on one side of a task, until nothing more can come. */
export class InFlightCapture {
  readonly batches: InFlightBatch[] = [];
  /** Resolves when all is there; rejects when the checkpoint is given up. */
  readonly done: Promise<void>;
  private resolve: () => void = () => undefined;
  private reject: (error: Error) => void = () => undefined;

  constructor(readonly checkpointId: number) {
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Nobody may be waiting yet.
    this.done.catch(() => undefined);
  }

  finish(): void {
    this.resolve();
  }

  giveUp(reason: string): void {
    this.reject(new MillraceError('CONFLICT', reason));
  }
}

/** Stores what was captured, in the form of operator state: one object for each edge, or inline. */
export async function writeInFlight(
  deps: { readonly stateBackends: StateBackendFactory; readonly scope: OperatorScope; readonly checkpointId: number },
  side: InFlightData['side'],
  batches: readonly InFlightBatch[],
  signal: AbortSignal,
): Promise<{ readonly data: InFlightData[]; readonly bytes: number }> {
  const data: InFlightData[] = [];
  let bytes = 0;
  for (const edge of new Set(batches.map(({ edge: one }) => one))) {
    const state = await deps.stateBackends.createOperatorStateBackend({ scope: deps.scope, restore: [], signal });
    const lists = new Map<string, StoredBatch[]>();
    for (const { edge: of, producer, consumer, batch } of batches) {
      if (of !== edge) continue;
      const name = inFlightChannelName({ producer, consumer });
      const list = lists.get(name);
      if (list === undefined) lists.set(name, [batch]);
      else list.push(batch);
    }
    for (const [name, list] of lists) state.update(name, 'SPLIT', list);
    const written = await state.snapshot(deps.checkpointId).write(signal);
    bytes += written.bytes;
    const { edgeId, partitioner, parallelism, maxParallelism } = edge;
    for (const handle of written.handles) {
      data.push({ edgeId, partitioner, side, consumers: parallelism, maxParallelism, batches: handle });
    }
  }
  return { data, bytes };
}
