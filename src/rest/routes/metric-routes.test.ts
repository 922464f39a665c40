import { expect, test } from 'vitest';
import fastify from 'fastify';
import { NO_IO } from '../../contracts/task.ts';
import type { JobDetailsView, VertexView } from '../../contracts/views.ts';
import { asOperatorId } from '../../kernel/ids.ts';
import type { RestDeps } from '../ports.ts';
import { JOB_ID, ModelDispatcher } from '../testing/model-dispatcher.ts';
import { metricRoutes } from './metric-routes.ts';

const [SOURCE, MAP, SINK] = ['a', 'b', 'c'].map((letter) => asOperatorId(letter.repeat(32))) as [
  ReturnType<typeof asOperatorId>,
  ReturnType<typeof asOperatorId>,
  ReturnType<typeof asOperatorId>,
];
const STATS = { min: 1, max: 9, mean: 4, median: 3, p75: 5, p90: 6, p95: 7, p98: 8, p99: 8, p999: 9 };

async function ask(path: string): Promise<unknown> {
  const dispatcher = new ModelDispatcher();
  const job = await dispatcher.requestJob(JOB_ID);
  const [source, consumer] = job.vertices as [VertexView, VertexView];
  const subtask = { index: 1, io: { ...NO_IO, latency: [{ sourceId: SOURCE, markers: 250, ...STATS }] } };
  const tracked = {
    ...job,
    restarts: 2,
    vertices: [
      { ...source, operators: [SOURCE] },
      { ...consumer, operators: [MAP, SINK], subtasks: [subtask] },
    ],
  } as unknown as JobDetailsView;
  dispatcher.requestJob = () => Promise.resolve(tracked);
  const app = fastify();
  metricRoutes(app, { dispatcher } as unknown as RestDeps);
  const response = await app.inject(path);
  await app.close();
  return response.json();
}

const latency = (operatorId: string, what: string) =>
  `latency.source_id.${SOURCE}.operator_id.${operatorId}.operator_subtask_index.1.latency_${what}`;

test('latency is shown by source, operator and subtask under Flink’s names', async () => {
  const ids = (await ask(`/jobs/${JOB_ID}/metrics`)) as { id: string }[];
  expect(ids.map(({ id }) => id)).toEqual(
    expect.arrayContaining(['numRestarts', latency(MAP, 'p99'), latency(SINK, 'mean')]),
  );
  expect(ids).toHaveLength(1 + 2 * 11);
  const names = [latency(SINK, 'p99'), latency(MAP, 'count'), 'numRestarts', 'nonsense'];
  expect(await ask(`/jobs/${JOB_ID}/metrics?get=${names.join(',')}`)).toEqual([
    { id: latency(SINK, 'p99'), value: '8' },
    { id: latency(MAP, 'count'), value: '250' },
    { id: 'numRestarts', value: '2' },
  ]);
});
