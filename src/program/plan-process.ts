import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError, UnavailableError } from '../kernel/errors.ts';
import { BoundedOutput } from './bounded-output.ts';
import type { PlanAnswer, PlanTask } from './plan-messages.ts';

export interface PlanProcessLimits {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly heapBytesMax: number;
  readonly childUrl: URL;
  readonly signal: AbortSignal;
}

const OUTPUT_CHARS_MAX = 16_384;
const MB = 1024 * 1024;
/** How much later than the server the process ends itself, should the server be gone. */
const SELF_DESTRUCT_DELAY_MS = 2_000;
/** Node's exit code when the top level still awaits something and nothing is left to wait for. */
const UNSETTLED_AWAIT = 13;

/**
 * Runs one task in a process of its own. However it ends, the process and those it started are gone when
 * this settles. What the program printed is kept up to a limit and never reaches the server's own output.
 *
 * Not a worker thread: when a thread reaches its heap limit V8 as often as not ends the whole process
 * ("Reached heap limit", "CALL_AND_RETRY_LAST"), and a master must not die of a program that it was sent.
 */
export async function runInProcess(
  task: Omit<PlanTask, 'timeLimitMs'>,
  limits: PlanProcessLimits,
): Promise<{ readonly answer: PlanAnswer; readonly output: string }> {
  const output = new BoundedOutput(OUTPUT_CHARS_MAX);
  const child = fork(fileURLToPath(limits.childUrl), [], {
    // Flags of the server (a debugger's port, a loader) are not for users' programs.
    execArgv: [`--max-old-space-size=${Math.max(16, Math.floor(limits.heapBytesMax / MB))}`],
    env: { ...process.env, NODE_OPTIONS: '' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'advanced',
    // A group of its own, so that what the program starts can be ended with it.
    detached: true,
  });
  if (child.stdout !== null) output.follow(child.stdout);
  if (child.stderr !== null) output.follow(child.stderr);
  try {
    const answer = await firstWord(
      child,
      { ...task, timeLimitMs: limits.timeoutMs + SELF_DESTRUCT_DELAY_MS },
      limits,
      output,
    );
    return { answer, output: output.toString() };
  } finally {
    await end(child);
  }
}

function firstWord(
  child: ChildProcess,
  task: PlanTask,
  limits: PlanProcessLimits,
  output: BoundedOutput,
): Promise<PlanAnswer> {
  const { clock, timeoutMs, signal } = limits;
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void) => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      outcome();
    };
    const fail = (message: string) => {
      const printed = output.toString().trim().slice(-500);
      const details = printed === '' ? {} : { hint: `The last it printed: ${printed}` };
      settle(() => reject(new MillraceError('PROGRAM', `${task.bundleName} ${message}`, details)));
    };
    const timer = clock.schedule(timeoutMs, () =>
      fail(`did not build its job within ${timeoutMs} ms: it hangs, or waits for something`),
    );
    const onAbort = () => settle(() => reject(new MillraceError('CLOSED', 'the planner was closed')));
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();

    child.once('message', (answer) => settle(() => resolve(answer as PlanAnswer)));
    // Also when it was killed before it read its task; then its exit says more than a broken channel.
    child.on('error', (error) =>
      settle(() => reject(new UnavailableError('cannot start a process to run the program in', { cause: error }))),
    );
    // After `close` all that it printed has been read. An answer sent just before the end may still be in
    // the channel, which is read to its end before it is disconnected.
    child.once('close', (code, killedBy) => {
      const ended = () => fail(describeEnd(code, killedBy, output, limits));
      if (child.connected) child.once('disconnect', ended);
      else ended();
    });
    child.send(task, (error) => {
      // The process ended first: `close` tells how.
      if (error !== null && child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    });
  });
}

function describeEnd(
  code: number | null,
  killedBy: NodeJS.Signals | null,
  output: BoundedOutput,
  limits: PlanProcessLimits,
): string {
  if (/heap limit|heap out of memory/.test(output.toString())) {
    return `needs more than ${Math.floor(limits.heapBytesMax / MB)} MB of memory to build its job`;
  }
  if (killedBy !== null) return `was ended by ${killedBy} before its job was built`;
  if (code === UNSETTLED_AWAIT) return 'did not build its job: it waits for something that can no longer happen';
  return `ended its process (process.exit, code ${code}) before its job was built`;
}

/** Ends the process and its group, and waits until it is gone. */
async function end(child: ChildProcess): Promise<void> {
  const { pid } = child;
  if (pid === undefined) return;
  const gone = child.exitCode !== null || child.signalCode !== null ? undefined : once(child, 'exit');
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    // ESRCH: all of the group have ended by themselves.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
  await gone;
  // Something that left the group may still hold the other ends.
  child.stdout?.destroy();
  child.stderr?.destroy();
}
