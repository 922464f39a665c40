import { z } from 'zod';
import type {
  AllocationId,
  AttemptId,
  DeploymentId,
  Digest,
  FencingToken,
  JarId,
  JobId,
  OperatorId,
  TaskManagerId,
  VertexId,
} from '../kernel/ids.ts';

/** Schemas of the ids and small values that every message between roles is made of. */

const branded = <T>(schema: z.ZodString) => schema as unknown as z.ZodType<T, T>;

export const jobIdSchema = branded<JobId>(z.string().regex(/^[0-9a-f]{32}$/, 'a job id is 32 lower-case hex digits'));
export const vertexIdSchema = branded<VertexId>(z.string().regex(/^[0-9a-f]{32}$/));
export const operatorIdSchema = branded<OperatorId>(z.string().regex(/^[0-9a-f]{32}$/));
export const attemptIdSchema = branded<AttemptId>(z.string().regex(/^[0-9a-f]{32}$/));
export const allocationIdSchema = branded<AllocationId>(z.string().regex(/^[0-9a-f]{32}$/));
export const taskManagerIdSchema = branded<TaskManagerId>(z.string().regex(/^[A-Za-z0-9._-]{1,120}$/));
export const jarIdSchema = branded<JarId>(z.string().min(1).max(300));
export const digestSchema = branded<Digest>(z.string().regex(/^[0-9a-f]{64}$/));
export const deploymentIdSchema = branded<DeploymentId>(z.string().regex(/^[0-9]+-[0-9]+$/));
export const fencingTokenSchema = z.bigint().positive() as unknown as z.ZodType<FencingToken, FencingToken>;

export const bytesSchema = z.instanceof(Uint8Array) as unknown as z.ZodType<Uint8Array, Uint8Array>;
export const objectKeySchema = z.string().min(1).max(512);
export const countSchema = z.number().int().nonnegative();
export const checkpointIdSchema = z.number().int().positive();

export const errorInfoSchema = z.object({
  code: z.enum([
    'FENCED',
    'NOT_LEADER',
    'UNAVAILABLE',
    'UNKNOWN_OUTCOME',
    'TIMEOUT',
    'INVALID_ARGUMENT',
    'NOT_FOUND',
    'CONFLICT',
    'TOO_LARGE',
    'PROGRAM',
    'NO_RESOURCES',
    'CORRUPT',
    'UNSUPPORTED_VERSION',
    'CONFIGURATION',
    'CLOSED',
    'USER_CODE',
    'INTERNAL',
  ]),
  message: z.string(),
  hint: z.string().optional(),
  stack: z.string().optional(),
});
