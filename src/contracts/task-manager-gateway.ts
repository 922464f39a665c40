import { z } from 'zod';
import { checkpointOptionsSchema } from './checkpoint.ts';
import { type Gateway, type GatewayHandler, method } from './gateway.ts';
import {
  allocationIdSchema,
  attemptIdSchema,
  checkpointIdSchema,
  countSchema,
  deploymentIdSchema,
  jobIdSchema,
  taskManagerIdSchema,
} from './schemas.ts';
import { attemptReportSchema, dataAddressSchema, slotDeploymentSchema } from './task.ts';

/**
 * What the leader tells a worker. The worker refuses every call with a lower token than it has seen
 * (`FENCED`), before looking at anything else.
 */

export const hardwareSchema = z.object({
  cpuCores: z.number().positive(),
  physicalMemoryBytes: countSchema,
  freeMemoryBytes: countSchema,
});
export type HardwareDescription = z.infer<typeof hardwareSchema>;

/** What a slot holds: nothing, or one job's tasks. */
export const slotReportSchema = z.object({
  slotIndex: countSchema,
  allocation: z
    .object({
      allocationId: allocationIdSchema,
      jobId: jobIdSchema,
      /** Where the slot's output is read; absent while the slot starts or ends. */
      dataAddress: dataAddressSchema.optional(),
    })
    .optional(),
});
export type SlotReport = z.infer<typeof slotReportSchema>;

export const workerReportSchema = z.object({
  taskManagerId: taskManagerIdSchema,
  slots: z.array(slotReportSchema),
  /** All attempts held, running or ended; ended ones are kept until the job is over. */
  attempts: z.array(attemptReportSchema),
  freeMemoryBytes: countSchema,
});
export type WorkerReport = z.infer<typeof workerReportSchema>;

const nothing = z.object({});

export const taskManagerGatewaySpec = {
  /** Binds a free slot to a job and readies its thread. Idempotent by allocation id. */
  allocateSlot: method(
    z.object({ slotIndex: countSchema, allocationId: allocationIdSchema, jobId: jobIdSchema }),
    z.object({ dataAddress: dataAddressSchema }),
    15_000,
  ),
  /** Ends what the slot still runs and gives it back. Idempotent. */
  freeSlot: method(z.object({ allocationId: allocationIdSchema, reason: z.string().max(2_000) }), nothing, 15_000),
  /** Answered once accepted; progress comes as state updates. Idempotent by attempt id. */
  submitTasks: method(slotDeploymentSchema, nothing, 30_000),
  /** Answered once asked; the attempts end with a state update. Unknown attempts are ignored. */
  cancelTasks: method(z.object({ jobId: jobIdSchema, attemptIds: z.array(attemptIdSchema) }), nothing, 5_000),
  /** Tells source subtasks to begin a checkpoint. */
  triggerCheckpoint: method(
    z.object({
      jobId: jobIdSchema,
      deployment: deploymentIdSchema,
      checkpointId: checkpointIdSchema,
      timestampMs: z.number(),
      options: checkpointOptionsSchema,
      attemptIds: z.array(attemptIdSchema),
    }),
    nothing,
    5_000,
  ),
  /** The checkpoint is durable: two-phase sinks commit. Idempotent, and repeated after a failover. */
  notifyCheckpointComplete: method(
    z.object({ jobId: jobIdSchema, deployment: deploymentIdSchema, checkpointId: checkpointIdSchema }),
    nothing,
    5_000,
  ),
  notifyCheckpointAborted: method(
    z.object({
      jobId: jobIdSchema,
      deployment: deploymentIdSchema,
      checkpointId: checkpointIdSchema,
      /** The newest completed one, so that a sink may still commit what it missed. */
      latestCompletedId: checkpointIdSchema.optional(),
      /** A new leader speaks: all checkpoints up to this id that have not completed are aborted with it. */
      andOlder: z.boolean().optional(),
    }),
    nothing,
    5_000,
  ),
  /** The job has a result: forget its attempts, cached bundle and local state. */
  releaseJob: method(z.object({ jobId: jobIdSchema }), nothing, 5_000),
  /** Proof of life in both directions: the leader asks, the worker reports. */
  heartbeat: method(nothing, workerReportSchema, 2_000, { readOnly: true }),
} as const;

export type TaskManagerGateway = Gateway<typeof taskManagerGatewaySpec>;
export type TaskManagerHandler = GatewayHandler<typeof taskManagerGatewaySpec>;
