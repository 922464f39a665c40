import { z } from 'zod';
import { executionStateSchema } from './job-status.ts';
import { jobGraphSchema } from './job-graph.ts';
import {
  allocationIdSchema,
  attemptIdSchema,
  checkpointIdSchema,
  countSchema,
  deploymentIdSchema,
  errorInfoSchema,
  jobIdSchema,
  operatorIdSchema,
  vertexIdSchema,
} from './schemas.ts';
import { inFlightDataSchema, operatorSnapshotSchema } from './state-handles.ts';

/** Where a slot's worker accepts data connections. `local` ones never leave their process. */
export const dataAddressSchema = z.object({ host: z.string().max(300), port: z.number().int().min(0).max(65_535) });
export type DataAddress = z.infer<typeof dataAddressSchema>;

/** One channel that a subtask reads: consumers connect to producers. */
export const inputChannelSchema = z.object({
  edgeId: z.string(),
  inputIndex: countSchema,
  /** Index of this consumer among the edge's consumers: the producer's subpartition. */
  subpartition: countSchema,
  producerSubtask: countSchema,
  producerAttempt: attemptIdSchema,
  producerAllocation: allocationIdSchema,
  producerAddress: dataAddressSchema,
});
export type InputChannelDescriptor = z.infer<typeof inputChannelSchema>;

/** One edge that a subtask writes. */
export const outputEdgeSchema = z.object({
  edgeId: z.string(),
  /** How many subpartitions this subtask writes (the consumers' parallelism; 1 for FORWARD). */
  subpartitions: z.number().int().min(1),
  /** For FORWARD and RESCALE: the consumer subtask that subpartition 0 stands for. */
  firstConsumer: countSchema,
});
export type OutputEdgeDescriptor = z.infer<typeof outputEdgeSchema>;

/** What a slot needs to run one subtask. */
export const taskDeploymentSchema = z.object({
  attemptId: attemptIdSchema,
  attemptNumber: countSchema,
  vertexId: vertexIdSchema,
  subtaskIndex: countSchema,
  inputs: z.array(inputChannelSchema),
  outputs: z.array(outputEdgeSchema),
  /** State to restore, already assigned to this subtask; empty on a fresh start. */
  restore: z
    .object({
      checkpointId: checkpointIdSchema,
      operators: z.array(operatorSnapshotSchema),
      /** Operators of which the checkpoint knows nothing: they begin as on a fresh start. */
      newOperators: z.array(operatorIdSchema).optional(),
      /** To be processed before anything else of its edge. */
      inFlight: z.array(inFlightDataSchema).optional(),
    })
    .optional(),
  /** The job has stopped with a savepoint already: the task is there to finish what that left to commit. */
  suspended: z.boolean().optional(),
});
export type TaskDeployment = z.infer<typeof taskDeploymentSchema>;

/** All tasks of one slot of one deployment, with what they share. */
export const slotDeploymentSchema = z.object({
  allocationId: allocationIdSchema,
  jobId: jobIdSchema,
  deployment: deploymentIdSchema,
  /**
   * The oldest deployment of which tasks of this job go on beside these; absent: none older does. What is
   * older is over everywhere: its attempts end, its readers are refused, its leftovers belong to nobody.
   */
  oldestLive: deploymentIdSchema.optional(),
  graph: jobGraphSchema,
  tasks: z.array(taskDeploymentSchema).min(1),
});
export type SlotDeployment = z.infer<typeof slotDeploymentSchema>;

/** How old latency markers of one source were when they came by; over the last of them, in milliseconds. */
export const latencyStatsSchema = z.object({
  /** The operator that sent them. */
  sourceId: operatorIdSchema,
  /** All that ever came. */
  markers: countSchema,
  min: z.number(),
  max: z.number(),
  mean: z.number(),
  median: z.number(),
  p75: z.number(),
  p90: z.number(),
  p95: z.number(),
  p98: z.number(),
  p99: z.number(),
  p999: z.number(),
});
export type LatencyStats = z.infer<typeof latencyStatsSchema>;

/** Counters since the attempt started; cheap to keep, sent with heartbeats. */
export const ioMetricsSchema = z.object({
  readRecords: countSchema,
  writeRecords: countSchema,
  readBytes: countSchema,
  writeBytes: countSchema,
  /** Milliseconds spent waiting for credit, waiting for input, and working. */
  backPressuredMs: z.number().min(0),
  idleMs: z.number().min(0),
  busyMs: z.number().min(0),
  /** By source, where latency is tracked. */
  latency: z.array(latencyStatsSchema).optional(),
});
export type IoMetrics = z.infer<typeof ioMetricsSchema>;
export const NO_IO: IoMetrics = {
  readRecords: 0,
  writeRecords: 0,
  readBytes: 0,
  writeBytes: 0,
  backPressuredMs: 0,
  idleMs: 0,
  busyMs: 0,
};

/** A worker's word on one attempt that it holds, running or ended. */
export const attemptReportSchema = z.object({
  jobId: jobIdSchema,
  deployment: deploymentIdSchema,
  vertexId: vertexIdSchema,
  subtaskIndex: countSchema,
  attemptId: attemptIdSchema,
  attemptNumber: countSchema,
  allocationId: allocationIdSchema,
  state: executionStateSchema,
  /** All sources' input is exhausted as far as this subtask can see: it waits for the final checkpoint. */
  endOfData: z.boolean(),
  /** The data ended because the job was to stop, not because the input had: it may end for good only with that savepoint. */
  drained: z.boolean().optional(),
  error: errorInfoSchema.optional(),
  /** FAILED because another task or the way to it was lost: nothing of its own went wrong, and it left nothing behind. */
  peerLost: z.boolean().optional(),
  io: ioMetricsSchema,
});
export type AttemptReport = z.infer<typeof attemptReportSchema>;

export const checkpointAckSchema = z.object({
  jobId: jobIdSchema,
  deployment: deploymentIdSchema,
  checkpointId: checkpointIdSchema,
  vertexId: vertexIdSchema,
  subtaskIndex: countSchema,
  attemptId: attemptIdSchema,
  /** One entry per operator of the chain that has state; operators without are left out. */
  operators: z.array(operatorSnapshotSchema),
  /** What the barrier overtook in this task's queues. */
  inFlight: z.array(inFlightDataSchema).optional(),
  /** Bytes of records that were stored because the barrier overtook them; undefined: it overtook none. */
  inFlightBytes: countSchema.optional(),
  stateBytes: countSchema,
  alignmentMs: z.number().min(0),
  syncMs: z.number().min(0),
  asyncMs: z.number().min(0),
});
export type CheckpointAck = z.infer<typeof checkpointAckSchema>;

export const checkpointDeclineSchema = z.object({
  jobId: jobIdSchema,
  deployment: deploymentIdSchema,
  checkpointId: checkpointIdSchema,
  vertexId: vertexIdSchema,
  subtaskIndex: countSchema,
  attemptId: attemptIdSchema,
  reason: errorInfoSchema,
});
export type CheckpointDecline = z.infer<typeof checkpointDeclineSchema>;
