import { Worker } from 'node:worker_threads';
import type { Clock } from '../kernel/clock.ts';
import { asError, MillraceError } from '../kernel/errors.ts';
import { BoundedOutput } from './bounded-output.ts';
import type { PlanAnswer, PlanTask } from './plan-messages.ts';
import { programError } from './program-error.ts';

export interface ThreadLimits {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly heapBytesMax: number;
  readonly workerUrl: URL;
  readonly signal: AbortSignal;
}

const OUTPUT_CHARS_MAX = 16_384;
const STACK_MB = 4;
const MB = 1024 * 1024;
/** Node's exit code of a thread whose top level still awaits something when nothing is left to wait for. */
const UNSETTLED_AWAIT = 13;

/**
 * Runs one task in a thread of its own. However it ends, the thread is gone when this settles. What the
 * program printed is kept up to a limit and never reaches the server's own output.
 */
export async function runInWorker(
  task: PlanTask,
  limits: ThreadLimits,
): Promise<{ readonly answer: PlanAnswer; readonly output: string }> {
  const output = new BoundedOutput(OUTPUT_CHARS_MAX);
  const worker = new Worker(limits.workerUrl, {
    workerData: task,
    stdin: false,
    stdout: true,
    stderr: true,
    // Flags of the server (a debugger's port, a loader) are not for users' programs.
    execArgv: [],
    resourceLimits: {
      maxOldGenerationSizeMb: Math.max(16, Math.floor(limits.heapBytesMax / MB)),
      stackSizeMb: STACK_MB,
    },
    name: `plan ${task.bundleName}`,
  });
  output.follow(worker.stdout);
  output.follow(worker.stderr);
  try {
    const answer = await firstWord(worker, task, limits, output);
    return { answer, output: output.toString() };
  } finally {
    await worker.terminate();
  }
}

function firstWord(worker: Worker, task: PlanTask, limits: ThreadLimits, output: BoundedOutput): Promise<PlanAnswer> {
  const { clock, timeoutMs, signal } = limits;
  return new Promise((resolve, reject) => {
    const fail = (message: string, cause?: unknown) => {
      const printed = output.toString().trim().slice(-500);
      reject(
        new MillraceError('PROGRAM', `${task.bundleName} ${message}`, {
          cause,
          ...(printed === '' ? {} : { hint: `The last it printed: ${printed}` }),
        }),
      );
      settled();
    };
    const timer = clock.schedule(timeoutMs, () =>
      fail(`did not build its job within ${timeoutMs} ms: it hangs, or waits for something`),
    );
    const onAbort = () => {
      reject(new MillraceError('CLOSED', 'the planner was closed'));
      settled();
    };
    const settled = () => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);

    worker.once('message', (answer: PlanAnswer) => {
      resolve(answer);
      settled();
    });
    // Also when nobody waits any more: an 'error' event without a listener would end the server.
    worker.on('error', (thrown: unknown) => {
      const error = asError(thrown);
      if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') {
        fail(`needs more than ${Math.floor(limits.heapBytesMax / MB)} MB of memory to build its job`);
        return;
      }
      reject(programError('run', error, task));
      settled();
    });
    worker.once('exit', (code) =>
      fail(
        code === UNSETTLED_AWAIT
          ? 'did not build its job: it waits for something that can no longer happen'
          : `ended its thread (process.exit, code ${code}) before its job was built`,
      ),
    );
  });
}
