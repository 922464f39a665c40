import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { LatencyStats } from '../../contracts/task.ts';
import type { JobDetailsView } from '../../contracts/views.ts';
import { jobIdOf, parseInput } from '../input.ts';
import type { RestDeps } from '../ports.ts';

const metricsQuery = z.object({ get: z.string().max(100_000).optional() });

/** A job's own metrics, asked for as in Flink: without `get` their names, with `get=a,b` their values. */
export function metricRoutes(app: FastifyInstance, { dispatcher }: RestDeps): void {
  app.get('/jobs/:jobid/metrics', async (request) => {
    const { get } = parseInput('the query', metricsQuery, request.query);
    const metrics = jobMetrics(await dispatcher.requestJob(jobIdOf(request.params)));
    if (get === undefined) return [...metrics.keys()].map((id) => ({ id }));
    return get.split(',').flatMap((id) => {
      const value = metrics.get(id);
      return value === undefined ? [] : [{ id, value: String(value) }];
    });
  });
}

/** Flink's names. */
export function jobMetrics(job: JobDetailsView): ReadonlyMap<string, number> {
  const metrics = new Map<string, number>([['numRestarts', job.restarts]]);
  for (const { operators, subtasks } of job.vertices) {
    for (const { index, io } of subtasks) {
      for (const { sourceId, markers, ...stats } of io.latency ?? []) {
        // Chained operators see a marker in the same instant.
        for (const operatorId of operators) {
          const prefix = `latency.source_id.${sourceId}.operator_id.${operatorId}.operator_subtask_index.${index}.latency_`;
          metrics.set(`${prefix}count`, markers);
          for (const [name, value] of Object.entries(stats) as [keyof typeof stats & keyof LatencyStats, number][]) {
            metrics.set(`${prefix}${name}`, value);
          }
        }
      }
    }
  }
  return metrics;
}
