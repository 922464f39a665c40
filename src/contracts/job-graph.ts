import { z } from 'zod';
import { partitionerSchema } from './partitioner.ts';
import { digestSchema, jobIdSchema, objectKeySchema, operatorIdSchema, vertexIdSchema } from './schemas.ts';

/**
 * The JobGraph: what a job is, without its functions.
 *
 * Functions stay in the user's bundle; a slot finds them again by operator id after running the same
 * `main` and comparing `fingerprint`. The graph is stored as one immutable object, so it may be large
 * (it holds the sources' splits), while its pointer is small.
 */

export const MAX_PARALLELISM_LIMIT = 32_768;
export const DEFAULT_MAX_PARALLELISM = 128;

export { type Partitioner, partitionerSchema } from './partitioner.ts';

export const operatorDescriptorSchema = z.object({
  id: operatorIdSchema,
  /** As the author set it, else undefined: state of operators with a uid survives changes of the graph. */
  uid: z.string().max(500).optional(),
  name: z.string().max(500),
  /** `source`, `map`, `flatMap`, `filter`, `reduce`, `sink`, … : for people and for the fingerprint. */
  kind: z.string().max(60),
  /** The operators inside the same vertex whose output this one reads; empty for the head of a chain. */
  inputs: z.array(operatorIdSchema),
  /** For sources: the splits found when the graph was built, handed out to subtasks by index. */
  splits: z.array(z.unknown()).optional(),
  /** True when the operator commits output only with completed checkpoints (two-phase commit). */
  twoPhaseCommit: z.boolean().optional(),
});
export type OperatorDescriptor = z.infer<typeof operatorDescriptorSchema>;

export const jobVertexSchema = z.object({
  id: vertexIdSchema,
  name: z.string().max(2_000),
  parallelism: z.number().int().min(1).max(MAX_PARALLELISM_LIMIT),
  maxParallelism: z.number().int().min(1).max(MAX_PARALLELISM_LIMIT),
  slotSharingGroup: z.string().max(200),
  /** In topological order; the first is the head that reads the vertex's inputs (or the source). */
  operators: z.array(operatorDescriptorSchema).min(1),
});
export type JobVertex = z.infer<typeof jobVertexSchema>;

export const jobEdgeSchema = z.object({
  /** Unique in the graph and stable: `<source operator>-<target operator>-<inputIndex>`. */
  id: z.string().max(120),
  source: vertexIdSchema,
  sourceOperator: operatorIdSchema,
  target: vertexIdSchema,
  targetOperator: operatorIdSchema,
  /** Which input of a multi-input operator; 0 for the first. */
  inputIndex: z.number().int().nonnegative(),
  partitioner: partitionerSchema,
  /** The id of the side output that the edge carries; undefined: the operator's results. */
  sideOutput: z.string().max(200).optional(),
});
export type JobEdge = z.infer<typeof jobEdgeSchema>;

export const restartStrategySchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('none') }),
  z.object({ type: z.literal('fixed-delay'), attempts: z.number().int().min(0), delayMs: z.number().min(0) }),
  z.object({
    type: z.literal('exponential-delay'),
    initialBackoffMs: z.number().positive(),
    maxBackoffMs: z.number().positive(),
    backoffMultiplier: z.number().min(1),
    /** After this long without a failure the back-off starts again from its initial value. */
    resetBackoffThresholdMs: z.number().positive(),
    jitterFactor: z.number().min(0).max(1),
    /** Undefined: no limit. */
    attemptsBeforeResetBackoff: z.number().int().positive().optional(),
  }),
  z.object({
    type: z.literal('failure-rate'),
    maxFailuresPerInterval: z.number().int().positive(),
    failureRateIntervalMs: z.number().positive(),
    delayMs: z.number().min(0),
  }),
]);
export type RestartStrategyConfig = z.infer<typeof restartStrategySchema>;

export const checkpointConfigSchema = z.object({
  /** Milliseconds between triggers; undefined switches periodic checkpoints off. */
  intervalMs: z.number().positive().optional(),
  mode: z.enum(['EXACTLY_ONCE', 'AT_LEAST_ONCE']),
  timeoutMs: z.number().positive(),
  minPauseMs: z.number().min(0),
  maxConcurrent: z.number().int().min(1),
  /** How many consecutive failed checkpoints are borne before the job fails over. */
  tolerableFailedCheckpoints: z.number().int().min(0),
  numRetained: z.number().int().min(1),
  /** What happens to the retained checkpoints when the job ends. */
  externalizedRetention: z.enum(['DELETE_ON_CANCELLATION', 'RETAIN_ON_CANCELLATION', 'NO_EXTERNALIZED_CHECKPOINTS']),
  unaligned: z.boolean(),
  /** 0: unaligned from the start when `unaligned`; else switch after this long. */
  alignedTimeoutMs: z.number().min(0),
});
export type CheckpointConfig = z.infer<typeof checkpointConfigSchema>;

/** `hashmap`: in memory, the fastest. `lmdb`: on the worker's disk, for more than fits into memory. */
export const stateBackendTypeSchema = z.enum(['hashmap', 'lmdb']);
export type StateBackendType = z.infer<typeof stateBackendTypeSchema>;

export const snapshotCompressionSchema = z.enum(['none', 'gzip', 'lz4']);
export type SnapshotCompression = z.infer<typeof snapshotCompressionSchema>;

/** Where a job's state is kept and how it is written. All of it may change between a checkpoint and its restore. */
export const stateConfigSchema = z.object({
  backend: stateBackendTypeSchema,
  /** Checkpoints refer to what earlier ones wrote for key groups that have not changed. */
  incremental: z.boolean(),
  compression: snapshotCompressionSchema,
  /** Workers keep a copy of what they wrote for the newest checkpoint, to restore from. */
  localRecovery: z.boolean(),
});
export type StateConfig = z.infer<typeof stateConfigSchema>;

export const jobConfigSchema = z.object({
  checkpointing: checkpointConfigSchema,
  restartStrategy: restartStrategySchema,
  /** Longest time a record waits in an output buffer. */
  /** 0: every record leaves at once. -1: only full buffers, and what must precede a barrier, a watermark or the end. */
  bufferTimeoutMs: z.number().min(-1),
  /** `metrics.latency.interval`; undefined or 0: no markers. */
  latencyIntervalMs: z.number().min(0).optional(),
  /** `pipeline.auto-watermark-interval`; undefined: 200. 0: only at the end of the data. */
  autoWatermarkIntervalMs: z.number().min(0).optional(),
  /** Undefined: as the worker is configured. */
  state: stateConfigSchema.optional(),
  /** What to do when the newest checkpoint cannot be read. */
  recoveryFallback: z.enum(['none', 'previous', 'fresh']),
  /** Shown by REST; the author's global job parameters. */
  userConfig: z.record(z.string(), z.string()),
});
export type JobConfig = z.infer<typeof jobConfigSchema>;

/**
 * Whose the checkpoint is that a job starts from. CLAIM: the job's, which removes it once newer checkpoints have
 * taken its place. NO_CLAIM: the user's; nothing of it is needed any more once the job has a checkpoint of its own.
 */
export const claimModeSchema = z.enum(['CLAIM', 'NO_CLAIM']);
export type ClaimMode = z.infer<typeof claimModeSchema>;

/** Where the user's code is. `inline` means that it lives in this process (mini cluster). */
export const bundleRefSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('object'),
    objectKey: objectKeySchema,
    digest: digestSchema,
    bytes: z.number().int().positive(),
    /** The exported function to run; undefined: `main`, then the default export, then the module itself. */
    entryClass: z.string().max(300).optional(),
    args: z.array(z.string().max(10_000)).max(1_000),
    /** Default parallelism of the environment when the graph was built: a slot must build the same graph. */
    parallelism: z.number().int().min(1).max(MAX_PARALLELISM_LIMIT).optional(),
  }),
  z.object({ kind: z.literal('inline'), programId: z.string() }),
]);
export type BundleRef = z.infer<typeof bundleRefSchema>;

export const JOB_GRAPH_FORMAT = 1;

export const jobGraphSchema = z.object({
  formatVersion: z.number().int(),
  jobId: jobIdSchema,
  name: z.string().min(1).max(500),
  /** In topological order. */
  vertices: z.array(jobVertexSchema).min(1),
  edges: z.array(jobEdgeSchema),
  config: jobConfigSchema,
  bundle: bundleRefSchema,
  /** Digest over structure (ids, kinds, names, parallelism, edges), not over splits or configuration. */
  fingerprint: z.string().min(1).max(100),
  /** Restore from this savepoint or retained checkpoint (object key of its metadata) on the first start. */
  restoreFrom: z
    .object({
      metadataKey: objectKeySchema,
      allowNonRestoredState: z.boolean(),
      /** Undefined: NO_CLAIM. */
      claimMode: claimModeSchema.optional(),
    })
    .optional(),
  /** Why these vertices, for people: the text shown as Flink's plan. */
  submittedWallMs: z.number(),
});
export type JobGraph = z.infer<typeof jobGraphSchema>;

/** A plan before it becomes a job: everything but identity and bundle. Made by the graph room. */
export type JobPlan = Omit<JobGraph, 'jobId' | 'bundle' | 'submittedWallMs' | 'restoreFrom'>;
