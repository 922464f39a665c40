import { z } from 'zod';
import { partitionerSchema } from './partitioner.ts';
import { bytesSchema, countSchema, digestSchema, objectKeySchema, operatorIdSchema } from './schemas.ts';

/**
 * Handles: where a piece of snapshotted state is. They travel in acknowledgements and are kept in
 * checkpoint metadata. Small state (under `state.storage.fs.memory-threshold`) travels inline.
 */
export const stateHandleSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('inline'), bytes: bytesSchema }),
  z.object({ kind: z.literal('object'), key: objectKeySchema, size: countSchema, digest: digestSchema }),
]);
export type StateHandle = z.infer<typeof stateHandleSchema>;

/** Keyed state of the key groups [firstKeyGroup, lastKeyGroup] of one operator. */
export const keyedStateHandleSchema = z.object({
  firstKeyGroup: countSchema,
  lastKeyGroup: countSchema,
  /**
   * Start of each key group's section inside the handle's bytes; one more than groups, the last is the
   * end. A restore with another parallelism reads only the sections it owns.
   */
  offsets: z.array(countSchema),
  handle: stateHandleSchema,
});
export type KeyedStateHandle = z.infer<typeof keyedStateHandleSchema>;

/** SPLIT: items are dealt out on restore; UNION: everyone gets all; BROADCAST: everyone gets one copy. */
export const operatorStateModeSchema = z.enum(['SPLIT', 'UNION', 'BROADCAST']);
export type OperatorStateMode = z.infer<typeof operatorStateModeSchema>;

/** Non-keyed state of one operator in one subtask: named lists of items. */
export const operatorStateHandleSchema = z.object({
  states: z.array(
    z.object({
      name: z.string().max(200),
      mode: operatorStateModeSchema,
      /** Start of each item; one more than items, the last is the end. */
      offsets: z.array(countSchema),
    }),
  ),
  handle: stateHandleSchema,
});
export type OperatorStateHandle = z.infer<typeof operatorStateHandleSchema>;

/** What one operator of one subtask has stored in one checkpoint. */
export const operatorSnapshotSchema = z.object({
  operatorId: operatorIdSchema,
  keyed: z.array(keyedStateHandleSchema),
  operator: z.array(operatorStateHandleSchema),
});
export type OperatorSnapshot = z.infer<typeof operatorSnapshotSchema>;

/**
 * Records that a barrier overtook on one edge, as one task held them: those in its input queues, or those in the
 * queues of its output. A restore gives both to the consumers, the input of each channel before its output.
 */
export const inFlightDataSchema = z.object({
  edgeId: z.string().max(120),
  partitioner: partitionerSchema,
  side: z.enum(['INPUT', 'OUTPUT']),
  /** Parallelism of the consumers when it was stored, and their key groups. */
  consumers: z.number().int().min(1),
  maxParallelism: z.number().int().min(1),
  /** One list of batches for each channel, named by {@link inFlightChannelName}. */
  batches: operatorStateHandleSchema,
});
export type InFlightData = z.infer<typeof inFlightDataSchema>;

export interface InFlightChannel {
  readonly producer: number;
  readonly consumer: number;
}

export function inFlightChannelName({ producer, consumer }: InFlightChannel): string {
  return `${producer}-${consumer}`;
}

export function parseInFlightChannel(name: string): InFlightChannel {
  const [producer = Number.NaN, consumer = Number.NaN] = name.split('-').map(Number);
  return { producer, consumer };
}

/** All handles that a part of a checkpoint refers to: whoever keeps or deletes objects asks here. */
export function handlesIn(part: {
  readonly operators: Iterable<OperatorSnapshot>;
  readonly inFlight?: Iterable<InFlightData> | undefined;
}): StateHandle[] {
  const handles: StateHandle[] = [];
  for (const { keyed, operator } of part.operators) {
    for (const { handle } of keyed) handles.push(handle);
    for (const { handle } of operator) handles.push(handle);
  }
  for (const { batches } of part.inFlight ?? []) handles.push(batches.handle);
  return handles;
}
