import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { OperationView } from '../../contracts/dispatcher-gateway.ts';
import { type TriggerId, triggerIdSchema } from '../../contracts/operations.ts';
import type { ErrorInfo } from '../../kernel/errors.ts';
import { jobIdOf, parseInput } from '../input.ts';
import type { RestDeps } from '../ports.ts';

/**
 * What is asked for now and answered later, as in Flink: the request is answered with a `request-id`, under which
 * its status is found. `null` stands for absent, unknown fields are ignored.
 */
const trigger = { triggerId: triggerIdSchema.nullish() };
const format = z.enum(['CANONICAL', 'NATIVE']).nullish();
const directory = z.string().min(1).max(400).nullish();
const savepointBody = z
  .object({
    ...trigger,
    'target-directory': directory,
    'cancel-job': z.boolean().nullish(),
    formatType: format,
  })
  .loose();
const stopBody = z
  .object({ ...trigger, targetDirectory: directory, drain: z.boolean().nullish(), formatType: format })
  .loose();
const checkpointBody = z
  .object({ ...trigger, checkpointType: z.enum(['CONFIGURED', 'FULL', 'INCREMENTAL']).nullish() })
  .loose();
const disposalBody = z.object({ ...trigger, 'savepoint-path': z.string().min(1).max(500) }).loose();

export function savepointRoutes(app: FastifyInstance, { dispatcher }: RestDeps): void {
  app.post('/jobs/:jobid/savepoints', async (request, reply) => {
    const jobId = jobIdOf(request.params);
    const body = parseInput('the body', savepointBody, request.body ?? {});
    const id = await dispatcher.triggerSavepoint(jobId, {
      ...chosen(body),
      ...(body['target-directory'] == null ? {} : { targetDirectory: body['target-directory'] }),
      ...(body['cancel-job'] === true ? { cancelJob: true } : {}),
    });
    return reply.code(202).send({ 'request-id': id });
  });

  app.get('/jobs/:jobid/savepoints/:triggerid', async (request) =>
    savepointJson(await dispatcher.requestOperation(jobIdOf(request.params), 'SAVEPOINT', triggerIdOf(request.params))),
  );

  app.post('/jobs/:jobid/stop', async (request, reply) => {
    const jobId = jobIdOf(request.params);
    const body = parseInput('the body', stopBody, request.body ?? {});
    const id = await dispatcher.triggerSavepoint(jobId, {
      ...chosen(body),
      ...(body.targetDirectory == null ? {} : { targetDirectory: body.targetDirectory }),
      stop: body.drain === true ? 'DRAIN' : 'SUSPEND',
    });
    return reply.code(202).send({ 'request-id': id });
  });

  app.post('/jobs/:jobid/checkpoints', async (request, reply) => {
    const jobId = jobIdOf(request.params);
    const body = parseInput('the body', checkpointBody, request.body ?? {});
    const id = await dispatcher.triggerCheckpoint(jobId, { ...chosen(body), full: body.checkpointType === 'FULL' });
    return reply.code(202).send({ 'request-id': id });
  });

  app.get('/jobs/:jobid/checkpoints/:triggerid', async (request) => {
    const view = await dispatcher.requestOperation(jobIdOf(request.params), 'CHECKPOINT', triggerIdOf(request.params));
    if (view.status === 'IN_PROGRESS') return operationJson(view.status, null);
    return operationJson(view.status, {
      ...(view.checkpointId === undefined ? {} : { checkpointId: view.checkpointId }),
      ...(view.failure === undefined ? {} : { failureCause: failureJson(view.failure) }),
    });
  });

  app.post('/savepoint-disposal', async (request) => {
    const body = parseInput('the body', disposalBody, request.body ?? {});
    return { 'request-id': await dispatcher.disposeSavepoint(body['savepoint-path'], chosen(body).triggerId) };
  });

  app.get('/savepoint-disposal/:triggerid', async (request) => {
    const view = await dispatcher.requestDisposal(triggerIdOf(request.params));
    if (view.status === 'IN_PROGRESS') return operationJson(view.status, null);
    return operationJson(view.status, view.failure === undefined ? {} : { 'failure-cause': failureJson(view.failure) });
  });
}

function chosen({ triggerId }: { readonly triggerId?: TriggerId | null | undefined }): {
  readonly triggerId?: TriggerId;
} {
  return triggerId == null ? {} : { triggerId };
}

function triggerIdOf(params: unknown): TriggerId {
  return parseInput('the trigger id', triggerIdSchema, (params as { triggerid: string }).triggerid);
}

function savepointJson(view: OperationView) {
  if (view.status === 'IN_PROGRESS') return operationJson(view.status, null);
  return operationJson(view.status, {
    ...(view.location === undefined ? {} : { location: view.location }),
    ...(view.failure === undefined ? {} : { 'failure-cause': failureJson(view.failure) }),
  });
}

function operationJson(status: OperationView['status'], operation: object | null) {
  return { status: { id: status }, operation };
}

/** Flink's form of a failure; what it serialises for Java has no meaning here and is left out. */
function failureJson({ code, message, hint }: ErrorInfo) {
  const text = hint === undefined ? message : `${message} ${hint}`;
  return { class: `millrace.${code}`, 'stack-trace': text };
}
