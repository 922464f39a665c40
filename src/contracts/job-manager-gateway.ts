import { z } from 'zod';
import { type Gateway, type GatewayHandler, method } from './gateway.ts';
import { countSchema, taskManagerIdSchema } from './schemas.ts';
import { attemptReportSchema, checkpointAckSchema, checkpointDeclineSchema } from './task.ts';
import { hardwareSchema, workerReportSchema } from './task-manager-gateway.ts';

/**
 * What a worker tells the leader. Every call carries the token of the leader that the worker means;
 * a replica that does not lead under that token answers `NOT_LEADER` and the worker looks again.
 */

export const workerRegistrationSchema = z.object({
  taskManagerId: taskManagerIdSchema,
  /** `host:port` of the worker's control RPC. */
  rpcAddress: z.string().min(3).max(300),
  /** Host under which the slots' data ports are reached. */
  dataHost: z.string().min(1).max(300),
  slots: countSchema.max(1_024),
  hardware: hardwareSchema,
  pid: countSchema,
  report: workerReportSchema,
});
export type WorkerRegistration = z.infer<typeof workerRegistrationSchema>;

const nothing = z.object({});

export const jobManagerGatewaySpec = {
  registerTaskManager: method(
    workerRegistrationSchema,
    z.object({ heartbeatIntervalMs: z.number().positive(), heartbeatTimeoutMs: z.number().positive() }),
    2_000,
  ),
  /** A graceful goodbye: the worker's tasks are redeployed at once. */
  disconnectTaskManager: method(
    z.object({ taskManagerId: taskManagerIdSchema, reason: z.string().max(2_000) }),
    nothing,
    2_000,
  ),
  /** Sent on every change of state; repeated until answered. `known: false`: the attempt is nobody's, end it. */
  updateTaskState: method(attemptReportSchema, z.object({ known: z.boolean() }), 2_000),
  acknowledgeCheckpoint: method(checkpointAckSchema, nothing, 5_000),
  declineCheckpoint: method(checkpointDeclineSchema, nothing, 2_000),
} as const;

export type JobManagerGateway = Gateway<typeof jobManagerGatewaySpec>;
export type JobManagerHandler = GatewayHandler<typeof jobManagerGatewaySpec>;
