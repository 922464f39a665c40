import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { NotFoundError } from '../../kernel/errors.ts';
import { jobIdOf, parseInput } from '../input.ts';
import { checkpointDetailsJson, checkpointsJson, exceptionsJson } from '../json/checkpoint-json.ts';
import { jobConfigJson, jobDetailsJson, jobOverviewJson, planJson, vertexDetailsJson } from '../json/job-json.ts';
import type { RestDeps } from '../ports.ts';

const cancelQuery = z.object({ mode: z.enum(['cancel']).default('cancel') });
const checkpointParams = z.object({ checkpointid: z.coerce.number().int().positive() });
const exceptionsQuery = z.object({ maxExceptions: z.coerce.number().int().min(1).max(1_000).default(20) });

export function jobRoutes(app: FastifyInstance, { dispatcher }: RestDeps): void {
  app.get('/jobs', async () => {
    const jobs = await dispatcher.listJobs();
    return { jobs: jobs.map((job) => ({ id: job.jobId, status: job.status })) };
  });

  app.get('/jobs/overview', async () => ({ jobs: (await dispatcher.listJobs()).map(jobOverviewJson) }));

  app.get('/jobs/:jobid', async (request) =>
    jobDetailsJson(await dispatcher.requestJob(jobIdOf(request.params)), Date.now()),
  );

  app.get('/jobs/:jobid/status', async (request) => ({
    status: (await dispatcher.requestJob(jobIdOf(request.params))).status,
  }));

  app.patch('/jobs/:jobid', async (request, reply) => {
    parseInput('the query', cancelQuery, request.query);
    await dispatcher.cancelJob(jobIdOf(request.params));
    return reply.code(202).send({});
  });

  app.get('/jobs/:jobid/plan', async (request) => {
    const job = await dispatcher.requestJob(jobIdOf(request.params));
    return { plan: planJson(job.jobId, job.name, job.vertices, job.edges) };
  });

  app.get('/jobs/:jobid/config', async (request) =>
    jobConfigJson(await dispatcher.requestJob(jobIdOf(request.params))),
  );

  app.get('/jobs/:jobid/exceptions', async (request) => {
    const { maxExceptions } = parseInput('the query', exceptionsQuery, request.query);
    const job = await dispatcher.requestJob(jobIdOf(request.params));
    return exceptionsJson(job.exceptions, maxExceptions);
  });

  app.get('/jobs/:jobid/checkpoints', async (request) =>
    checkpointsJson((await dispatcher.requestJob(jobIdOf(request.params))).checkpoints),
  );

  app.get('/jobs/:jobid/checkpoints/config', async (request) => {
    const { checkpointing } = (await dispatcher.requestJob(jobIdOf(request.params))).config;
    return {
      mode: checkpointing.mode === 'EXACTLY_ONCE' ? 'exactly_once' : 'at_least_once',
      interval: checkpointing.intervalMs ?? Number.MAX_SAFE_INTEGER,
      timeout: checkpointing.timeoutMs,
      min_pause: checkpointing.minPauseMs,
      max_concurrent: checkpointing.maxConcurrent,
      externalization: {
        enabled: checkpointing.externalizedRetention !== 'NO_EXTERNALIZED_CHECKPOINTS',
        delete_on_cancellation: checkpointing.externalizedRetention !== 'RETAIN_ON_CANCELLATION',
      },
      tolerable_failed_checkpoints: checkpointing.tolerableFailedCheckpoints,
      unaligned_checkpoints: checkpointing.unaligned,
      aligned_checkpoint_timeout: checkpointing.alignedTimeoutMs,
      checkpoints_after_tasks_finish: true,
      state_changelog_enabled: false,
      changelog_periodic_materialization_interval: 0,
      changelog_storage: 'none',
    };
  });

  app.get('/jobs/:jobid/checkpoints/details/:checkpointid', async (request) => {
    const { checkpointid: id } = parseInput('the checkpoint id', checkpointParams, request.params);
    const job = await dispatcher.requestJob(jobIdOf(request.params));
    const entry = job.checkpoints.history.find((one) => one.id === id);
    if (entry === undefined) throw new NotFoundError(`Job ${job.jobId} remembers no checkpoint ${id}.`);
    return checkpointDetailsJson(entry);
  });

  app.get('/jobs/:jobid/vertices/:vertexid', async (request) => {
    const job = await dispatcher.requestJob(jobIdOf(request.params));
    const { vertexid } = request.params as { vertexid: string };
    const vertex = job.vertices.find((one) => one.id === vertexid);
    if (vertex === undefined) throw new NotFoundError(`Job ${job.jobId} has no vertex ${vertexid}.`);
    return vertexDetailsJson(vertex, Date.now());
  });
}
