import { z } from 'zod';
import { checkpointIdSchema, countSchema, deploymentIdSchema, jobIdSchema, operatorIdSchema } from './schemas.ts';
import { operatorSnapshotSchema } from './state-handles.ts';

/** CHECKPOINT: owned and subsumed by the job. SAVEPOINT: kept until the user deletes it. */
export const checkpointKindSchema = z.enum(['CHECKPOINT', 'SAVEPOINT']);
export type CheckpointKind = z.infer<typeof checkpointKindSchema>;

export const checkpointOptionsSchema = z.object({
  kind: checkpointKindSchema,
  aligned: z.boolean(),
  alignedTimeoutMs: z.number().min(0),
});
export type CheckpointOptions = z.infer<typeof checkpointOptionsSchema>;

export const CHECKPOINT_METADATA_FORMAT = 1;

/** The metadata object of a completed checkpoint: all that is needed to restore. Immutable. */
export const checkpointMetadataSchema = z.object({
  formatVersion: z.number().int(),
  jobId: jobIdSchema,
  checkpointId: checkpointIdSchema,
  kind: checkpointKindSchema,
  deployment: deploymentIdSchema,
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
});
export type CheckpointMetadata = z.infer<typeof checkpointMetadataSchema>;

/** The small record behind the coordination pointer of a completed checkpoint. */
export interface CompletedCheckpoint {
  readonly metadata: CheckpointMetadata;
  /** Object key of the metadata; what a user gives to restore from it. */
  readonly metadataKey: string;
  readonly metadataBytes: number;
}
