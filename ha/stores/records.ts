import { z } from 'zod';
import {
  type CheckpointMetadata,
  checkpointKindSchema,
  checkpointMetadataSchema,
  stopModeSchema,
} from '../../src/contracts/checkpoint.ts';
import { checkpointConfigSchema, type JobGraph, jobGraphSchema } from '../../src/contracts/job-graph.ts';
import { jobStatusSchema } from '../../src/contracts/job-status.ts';
import {
  checkpointIdSchema,
  countSchema,
  digestSchema,
  errorInfoSchema,
  jobIdSchema,
  objectKeySchema,
} from '../../src/contracts/schemas.ts';
import type { JobDetailsView } from '../../src/contracts/views.ts';
import type { ObjectType } from './object-codec.ts';
import type { RecordType } from './record-codec.ts';

/**
 * The forms of all that is kept in coordination and of the objects behind it. Old clusters hold
 * these: a field may be added as optional; anything else needs a new version.
 */

const pointerSchema = z.object({ objectKey: objectKeySchema, digest: digestSchema, bytes: countSchema });
/** Unique per write; tells our own write from another's when an answer was lost. */
const writeIdSchema = z.string().min(1).max(64);

const jobRecordSchema = z.object({
  writeId: writeIdSchema,
  jobId: jobIdSchema,
  name: z.string(),
  submittedWallMs: z.number(),
  graph: pointerSchema,
  /** What the sweeper and clean-up must know without reading the graph. */
  bundleKey: objectKeySchema.optional(),
  restoreKey: objectKeySchema.optional(),
  retention: checkpointConfigSchema.shape.externalizedRetention,
  checkpointTimeoutMs: z.number().positive(),
  idempotencyHash: z.string().optional(),
});
export type JobRecord = z.infer<typeof jobRecordSchema>;
export const JOB_RECORD: RecordType<JobRecord> = { name: 'job', version: 1, schema: jobRecordSchema };

const cancelRecordSchema = z.object({ writeId: writeIdSchema, requestedWallMs: z.number() });
export const CANCEL_RECORD: RecordType<z.infer<typeof cancelRecordSchema>> = {
  name: 'cancel',
  version: 1,
  schema: cancelRecordSchema,
};

const idempotencyRecordSchema = z.object({ writeId: writeIdSchema, jobId: jobIdSchema });
export const IDEMPOTENCY_RECORD: RecordType<z.infer<typeof idempotencyRecordSchema>> = {
  name: 'idempotency',
  version: 1,
  schema: idempotencyRecordSchema,
};

const stateCountsSchema = z.record(z.string(), countSchema);

const resultRecordSchema = z.object({
  writeId: writeIdSchema,
  jobId: jobIdSchema,
  name: z.string(),
  status: z.enum(['FINISHED', 'CANCELED', 'FAILED']),
  error: errorInfoSchema.optional(),
  endedWallMs: z.number(),
  /** True until what the job left has been cleaned up. */
  dirty: z.boolean(),
  details: pointerSchema,
  /** What lists of jobs show, so that they read no objects. */
  startMs: z.number(),
  tasks: stateCountsSchema,
  /** Decided when the job ended: whether its checkpoints outlive it. */
  retainCheckpoints: z.boolean(),
  /** Unknown when the job's own record was unreadable; the sweeper then finds the object. */
  graphKey: objectKeySchema.optional(),
  idempotencyHash: z.string().optional(),
});
export type ResultRecord = z.infer<typeof resultRecordSchema>;
export const RESULT_RECORD: RecordType<ResultRecord> = { name: 'result', version: 1, schema: resultRecordSchema };

const checkpointRecordSchema = z.object({
  writeId: writeIdSchema,
  checkpointId: checkpointIdSchema,
  kind: checkpointKindSchema,
  metadata: pointerSchema,
  /**
   * Object prefixes other than the job's own in which it references state (a restore from another job
   * may). Kept here so that they stay protected while the metadata cannot be read.
   */
  foreign: z.array(z.string()).optional(),
  /** The job has stopped with it: whoever finds it only finishes what it left to commit. */
  stop: stopModeSchema.optional(),
  /** It was another's, and this job was told to take it over (CLAIM): its metadata names the job that wrote it. */
  claimed: z.boolean().optional(),
});
export type CheckpointRecord = z.infer<typeof checkpointRecordSchema>;
export const CHECKPOINT_RECORD: RecordType<CheckpointRecord> = {
  name: 'checkpoint',
  version: 1,
  schema: checkpointRecordSchema,
};

const counterRecordSchema = z.object({ writeId: writeIdSchema, last: countSchema });
export const COUNTER_RECORD: RecordType<z.infer<typeof counterRecordSchema>> = {
  name: 'counter',
  version: 1,
  schema: counterRecordSchema,
};

const jarRecordSchema = z.object({
  writeId: writeIdSchema,
  name: z.string(),
  uploadedMs: z.number(),
  bundle: pointerSchema,
  entries: z.array(z.string()),
});
export type JarRecord = z.infer<typeof jarRecordSchema>;
export const JAR_RECORD: RecordType<JarRecord> = { name: 'jar', version: 1, schema: jarRecordSchema };

export const GRAPH_OBJECT: ObjectType<JobGraph> = { name: 'job graph', version: 1, schema: jobGraphSchema };

export const METADATA_OBJECT: ObjectType<CheckpointMetadata> = {
  name: 'checkpoint metadata',
  version: 1,
  schema: checkpointMetadataSchema,
};

/** Shown, never decided upon: only the outline is checked, so that old details stay readable. */
export const DETAILS_OBJECT: ObjectType<JobDetailsView> = {
  name: 'job details',
  version: 1,
  schema: z.looseObject({
    jobId: jobIdSchema,
    name: z.string(),
    status: jobStatusSchema,
    vertices: z.array(z.unknown()),
  }) as unknown as z.ZodType<JobDetailsView>,
};
