import { z } from 'zod';
import type { ErrorInfo } from '../kernel/errors.ts';
import type { Branded, FencingToken, JobId } from '../kernel/ids.ts';
import { stopModeSchema } from './checkpoint.ts';
import { checkpointIdSchema, errorInfoSchema, jobIdSchema, objectKeySchema } from './schemas.ts';

/**
 * Operations that are asked for now and answered later: savepoints, checkpoints on request, disposals.
 *
 * Each has a record of its own under the id that its client chose or was given. A request is answered once its
 * record is durable, so it survives the leader that took it; the result is written once and never replaced.
 */
export type TriggerId = Branded<string, 'TriggerId'>;
export const triggerIdSchema = z
  .string()
  .regex(/^[0-9a-f]{32}$/, 'a trigger id is 32 lower-case hex digits') as unknown as z.ZodType<TriggerId, TriggerId>;

export const savepointRequestSchema = z.object({
  kind: z.literal('SAVEPOINT'),
  /** Object prefix of the savepoint, ending in `/`. */
  location: objectKeySchema,
  /** The job ends with the savepoint: by stopping, or by being cancelled once it is complete. */
  stop: stopModeSchema.optional(),
  cancelJob: z.boolean().optional(),
});
export type SavepointRequest = z.infer<typeof savepointRequestSchema>;

export const operationRequestSchema = z.discriminatedUnion('kind', [
  savepointRequestSchema,
  z.object({ kind: z.literal('CHECKPOINT'), full: z.boolean() }),
  z.object({ kind: z.literal('DISPOSAL'), metadataKey: objectKeySchema }),
]);
export type OperationRequest = z.infer<typeof operationRequestSchema>;

export const operationResultSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('SUCCESS'),
    checkpointId: checkpointIdSchema.optional(),
    /** Where the savepoint is: a later leader that takes it writes to a folder of its own. */
    location: objectKeySchema.optional(),
  }),
  z.object({ kind: z.literal('FAILURE'), error: errorInfoSchema }),
]);
export type OperationResult = z.infer<typeof operationResultSchema>;

export const operationSchema = z.object({
  triggerId: triggerIdSchema,
  /** Undefined: of no job. */
  jobId: jobIdSchema.optional(),
  request: operationRequestSchema,
  startedWallMs: z.number(),
  /** Undefined while it is in progress. */
  result: operationResultSchema.optional(),
});
export type Operation = z.infer<typeof operationSchema>;

/** A checkpoint or savepoint that was asked for, as it travels to the job's master. */
export type CheckpointOperation = Operation & {
  readonly request: Exclude<OperationRequest, { readonly kind: 'DISPOSAL' }>;
};

export function isCheckpointOperation(operation: Operation): operation is CheckpointOperation {
  return operation.request.kind !== 'DISPOSAL';
}

/** Which operations: those of a job, or the disposals. */
export type OperationScope = JobId | 'disposals';

export interface OperationStore {
  /**
   * Durable once it resolves. `existing`: there is one of this id already, which stays as it is. Rejects with
   * `NOT_FOUND` when the job is not running.
   */
  begin(
    operation: Operation,
    token: FencingToken,
  ): Promise<{ readonly outcome: 'created' | 'existing'; readonly operation: Operation }>;
  get(scope: OperationScope, triggerId: TriggerId): Promise<Operation | undefined>;
  /** Without a result, oldest first. */
  pending(scope: OperationScope): Promise<readonly Operation[]>;
  /** The first result stays; resolves with it. Undefined when the operation is not known (any more). */
  finish(
    scope: OperationScope,
    triggerId: TriggerId,
    result: OperationResult,
    token: FencingToken,
  ): Promise<OperationResult | undefined>;
}

/** Where savepoints are. */
export interface SavepointStore {
  /** The prefix of a new savepoint in `targetDirectory`, a path or URL (undefined: the cluster's own folder). */
  locate(targetDirectory: string | undefined, savepointName: string): string;
  /** The metadata object of the savepoint or checkpoint at a path or URL that a user names. Looks at no store. */
  resolve(path: string): string;
  /** What a user is told, and may give back to `resolve`. */
  urlOf(objectKeyOrPrefix: string): string;
  /**
   * Deletes a savepoint: pointer first, objects second. Rejects with `NOT_FOUND`, with `CONFLICT` while a job needs
   * it, with `INVALID_ARGUMENT` when it is a checkpoint that its job owns.
   */
  dispose(metadataKey: string, token: FencingToken): Promise<void>;
}

export function succeeded(checkpointId?: number, location?: string): OperationResult {
  return {
    kind: 'SUCCESS',
    ...(checkpointId === undefined ? {} : { checkpointId }),
    ...(location === undefined ? {} : { location }),
  };
}

const FAILURE_TEXT_MAX = 600;

/** Records are small: the log has the whole story. */
export function failedWith({ code, message, hint }: ErrorInfo): OperationResult {
  const cut = (text: string) => (text.length > FAILURE_TEXT_MAX ? `${text.slice(0, FAILURE_TEXT_MAX)}…` : text);
  return {
    kind: 'FAILURE',
    error: { code, message: cut(message), ...(hint === undefined ? {} : { hint: cut(hint) }) },
  };
}
