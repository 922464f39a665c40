import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { present } from '../kernel/assert.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { PlanAnswer, PlanTask } from './plan-messages.ts';
import { lacksPlace, programError, relabel } from './program-error.ts';
import { enumerateSplits, toUserProgram } from './program-graph.ts';
import { listEntries, runEntry } from './run-entry.ts';

/**
 * The process in which a user's program is run to learn its graph: it gets one task, gives one answer,
 * and is killed, with all that the program started in it.
 */

const send = present(process.send, 'channel to the planner').bind(process);
const [task] = (await once(process, 'message')) as [PlanTask];
// The channel alone must not keep a program alive that waits for nothing.
process.channel?.unref();
destroyInTime(task.timeLimitMs);

/**
 * Should the server die first, nobody would kill a program that spins. A timer of this thread would never
 * fire then; one of another thread does.
 */
function destroyInTime(timeLimitMs: number): void {
  const source = `setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${timeLimitMs})`;
  new Worker(source, { eval: true, env: {} }).unref();
}

async function answer(): Promise<PlanAnswer> {
  const request = { ...task, clock: new SystemClock() };
  if (task.mode === 'inspect') return { kind: 'entries', entries: (await listEntries(request)).entries };
  const { graph } = await runEntry(request);
  // Translated before the sources are asked: a graph that cannot be is the better message.
  const { plan } = toUserProgram(graph);
  if (task.mode === 'plan') return { kind: 'plan', plan };
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

function reply(message: PlanAnswer): void {
  // The program's timers and sockets do not keep us once the answer is out.
  send(message, undefined, undefined, () => process.exit(0));
}

// What the program throws where nobody waits for it is as much its failure as any other.
process.on('uncaughtException', (error) => reply(failure(programError('run', error, task))));

const answered = await answer().catch(failure);
try {
  reply(answered);
} catch (error) {
  // Splits with functions or sockets in them cannot leave the process, and could not be stored either.
  const { message } = asError(error);
  reply(failure(new MillraceError('PROGRAM', `a source's splits must be plain data: ${message}`)));
}
