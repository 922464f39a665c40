import { parentPort, workerData } from 'node:worker_threads';
import { present } from '../kernel/assert.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { PlanAnswer, PlanTask } from './plan-messages.ts';
import { lacksPlace, programError, relabel } from './program-error.ts';
import { enumerateSplits, toUserProgram } from './program-graph.ts';
import { listEntries, runEntry } from './run-entry.ts';

/**
 * The thread in which a user's program is run to learn its graph. It is thrown away afterwards, with all
 * that the program started in it. It protects the server from programs that are wrong, not from such as
 * are malicious: those share its process.
 */

const port = present(parentPort, 'port to the planner');
const task = workerData as PlanTask;

// In a thread `process.exit` ends the thread only, but a signal would still reach the whole server.
process.kill = () => {
  throw new MillraceError('PROGRAM', 'process.kill is not allowed while a job is being built');
};

async function answer(): Promise<PlanAnswer> {
  const request = { ...task, clock: new SystemClock() };
  if (task.mode === 'inspect') return { kind: 'entries', entries: (await listEntries(request)).entries };
  const { graph } = await runEntry(request);
  // Translated before the sources are asked: a graph that cannot be is the better message.
  toUserProgram(graph);
  if (task.mode === 'plan') return { kind: 'plan', plan: toUserProgram(graph).plan };
  const splits = await enumerateSplits(graph).catch((error: unknown) => {
    throw isMillraceError(error) ? error : programError('splits', error, task);
  });
  return { kind: 'plan', plan: toUserProgram(graph, splits).plan };
}

function failure(thrown: unknown): PlanAnswer {
  const error = asError(thrown);
  const placeUnknown = lacksPlace('load', error.cause ?? error, task);
  const { stack } = error;
  return {
    kind: 'failed',
    placeUnknown,
    error: { ...toErrorInfo(error), stack: stack === undefined ? undefined : relabel(stack, task) },
  };
}

const answered = await answer().catch(failure);
try {
  port.postMessage(answered);
} catch (error) {
  // Splits with functions or sockets in them cannot leave the thread, and could not be stored either.
  port.postMessage(
    failure(new MillraceError('PROGRAM', `a source's splits must be plain data: ${asError(error).message}`)),
  );
}
