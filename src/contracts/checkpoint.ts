import { z } from 'zod';
import { checkpointIdSchema, countSchema, deploymentIdSchema, jobIdSchema, operatorIdSchema } from './schemas.ts';
import { inFlightDataSchema, operatorSnapshotSchema } from './state-handles.ts';

/** CHECKPOINT: owned and subsumed by the job. SAVEPOINT: kept until the user deletes it. */
export const checkpointKindSchema = z.enum(['CHECKPOINT', 'SAVEPOINT']);
export type CheckpointKind = z.infer<typeof checkpointKindSchema>;

/**
 * How a job ends with a savepoint. SUSPEND: nothing is emitted behind it, no timer fires. DRAIN: event time comes
 * to its end before it, so that windows and timers fire into it.
 */
export const stopModeSchema = z.enum(['SUSPEND', 'DRAIN']);
export type StopMode = z.infer<typeof stopModeSchema>;

/** What every barrier says of its checkpoint. */
export const checkpointOptionsSchema = z.object({
  kind: checkpointKindSchema,
  /** True: it refers to nothing that another checkpoint wrote. So is every savepoint, whatever this says. */
  full: z.boolean().optional(),
  /** Where a savepoint's objects go: a prefix of object keys that ends in `/`. Its state is canonical: any backend reads it. */
  location: z.string().max(300).optional(),
  /** The tasks end with this checkpoint. */
  stop: stopModeSchema.optional(),
  /** False: barriers may overtake records, at once or after `alignedTimeoutMs`. */
  aligned: z.boolean(),
  alignedTimeoutMs: z.number().min(0),
});
export type CheckpointOptions = z.infer<typeof checkpointOptionsSchema>;

/** 2: may hold in-flight data. What holds none is written as 1, which older programs read. */
export const CHECKPOINT_METADATA_FORMAT = 2;

/** The metadata object of a completed checkpoint: all that is needed to restore. Immutable. */
export const checkpointMetadataSchema = z.object({
  formatVersion: z.number().int(),
  jobId: jobIdSchema,
  checkpointId: checkpointIdSchema,
  kind: checkpointKindSchema,
  /** The newest deployment that took part. */
  deployment: deploymentIdSchema,
  /** By vertex and subtask index, the deployment of each task; absent when all are of `deployment`. */
  taskDeployments: z.record(z.string(), z.array(deploymentIdSchema)).optional(),
  triggerWallMs: z.number(),
  completedWallMs: z.number(),
  stateBytes: countSchema,
  graphFingerprint: z.string(),
  operators: z.array(
    z.object({
      operatorId: operatorIdSchema,
      parallelism: z.number().int().min(1),
      maxParallelism: z.number().int().min(1),
      /** By subtask index; every subtask is present, also those without state. */
      subtasks: z.array(operatorSnapshotSchema),
    }),
  ),
  /** What barriers overtook, of all edges; in the order in which a consumer must process it. */
  inFlight: z.array(inFlightDataSchema).optional(),
});
export type CheckpointMetadata = z.infer<typeof checkpointMetadataSchema>;

/** The small record behind the coordination pointer of a completed checkpoint. */
export interface CompletedCheckpoint {
  readonly metadata: CheckpointMetadata;
  /** Object key of the metadata; what a user gives to restore from it. */
  readonly metadataKey: string;
  readonly metadataBytes: number;
}
