import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { dirname } from 'node:path';
import { guardGroup, processState, unguardGroup } from './guardian.ts';
import { until } from './until.ts';

export interface ProcessOptions {
  /** For messages. */
  readonly name: string;
  readonly command: string;
  readonly args?: readonly string[];
  /** On top of this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /**
   * Where both outputs go, appended. A file rather than a pipe: a busy test must not stall the
   * process it watches, and the last words of a killed one are still there.
   */
  readonly logFile: string;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A child process in a group of its own, which never outlives this process (see `guardian.ts`).
 * Signals go to the whole group, so helpers that the child started share its fate.
 */
export class ManagedProcess implements AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** Resolves when the process has ended and was reaped; never rejects. */
  readonly exited: Promise<ExitStatus>;
  private readonly logStart: number;
  private status: ExitStatus | undefined;

  private constructor(options: ProcessOptions, child: ChildProcess, logStart: number) {
    this.name = options.name;
    this.pid = child.pid ?? 0;
    this.logFile = options.logFile;
    this.logStart = logStart;
    guardGroup(this.pid);
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        this.status = { code, signal };
        // Whatever the child started in its group goes with it; the group's id is not reused while one lives.
        this.send('SIGKILL');
        unguardGroup(this.pid);
        resolve(this.status);
      });
    });
  }

  /** Resolves once the program runs; rejects when it cannot be started. */
  static async start(options: ProcessOptions): Promise<ManagedProcess> {
    mkdirSync(dirname(options.logFile), { recursive: true });
    const log = openSync(options.logFile, 'a');
    try {
      const logStart = fstatSync(log).size;
      const child = spawn(options.command, options.args ?? [], {
        cwd: options.cwd,
        env: { ...process.env, ...options.env },
        stdio: ['ignore', log, log],
        detached: true,
      });
      // Guarded in the same tick: there is no moment in which our death would leave the child behind.
      if (child.pid === undefined) {
        const [error] = (await once(child, 'error')) as [Error];
        throw new Error(`cannot start ${options.name} (${options.command}): ${error.message}`, { cause: error });
      }
      child.on('error', () => undefined); // Only a failed signal can come now; `send` looks at the state itself.
      return new ManagedProcess(options, child, logStart);
    } finally {
      closeSync(log);
    }
  }

  get alive(): boolean {
    return this.status === undefined;
  }

  /** Sends to the whole group; false when nothing is left of it. */
  send(signal: NodeJS.Signals): boolean {
    try {
      return process.kill(-this.pid, signal);
    } catch (error) {
      // EPERM: the id names somebody else's group by now, so ours is gone.
      if (['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
      throw error;
    }
  }

  /** Ends the process as a crash would; resolves when it is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<ExitStatus> {
    if (this.alive) this.send(signal);
    return this.exited;
  }

  /** Asks politely (SIGTERM), then insists after `graceMs`. */
  async stop(graceMs = 10_000): Promise<ExitStatus> {
    if (!this.alive) return this.exited;
    this.send('SIGTERM');
    this.send('SIGCONT'); // A paused process would not hear the first.
    const insist = setTimeout(() => this.send('SIGKILL'), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(insist);
    }
  }

  /** Freezes the process, as a long garbage collection or a suspended machine does. */
  async pause(): Promise<void> {
    this.mustLive('pause');
    this.send('SIGSTOP');
    // `waiting` counts: it runs no code of its own, and stops before it would. A process that is caught
    // while it starts a child stays in that state, because the stopped child cannot report back.
    const still = () => ['stopped', 'waiting'].includes(processState(this.pid));
    await until(`${this.name} to stand still`, still, { everyMs: 2 });
  }

  resume(): void {
    this.mustLive('resume');
    this.send('SIGCONT');
  }

  /** What this run wrote so far. */
  log(): string {
    return bytesFrom(this.logFile, this.logStart).toString('utf8');
  }

  /**
   * Waits for the first line of this run that matches, and returns the match. Fails at once, with
   * the last lines of the log, when the process ends before.
   */
  async untilLog(pattern: RegExp | string, timeoutMs = 15_000): Promise<RegExpMatchArray> {
    const wanted = typeof pattern === 'string' ? new RegExp(escaped(pattern)) : pattern;
    const reader = new LineReader(this.logFile, this.logStart);
    const outcome = await until(
      `${this.name} to log ${wanted}`,
      () => {
        const ended = this.status; // Before the log is read: what it wrote last must be seen.
        for (const line of reader.read(ended !== undefined)) {
          const match = line.match(wanted);
          if (match !== null) return match;
        }
        return ended;
      },
      { timeoutMs },
    ).catch((error: unknown) => {
      throw new Error(`${this.name} did not log ${wanted} within ${timeoutMs} ms; ${this.lastWords()}`, {
        cause: error,
      });
    });
    if (Array.isArray(outcome)) return outcome;
    throw new Error(`${this.name} ended (${showStatus(outcome)}) before it logged ${wanted}; ${this.lastWords()}`);
  }

  /** Calls `listener` for each line this run writes, from its first, until the process has ended or `close` is called. */
  onLine(listener: (line: string) => void, everyMs = 25): { close(): void } {
    const reader = new LineReader(this.logFile, this.logStart);
    const read = (last: boolean) => {
      for (const line of reader.read(last)) listener(line);
    };
    const timer = setInterval(() => {
      const last = !this.alive;
      if (last) clearInterval(timer);
      read(last);
    }, everyMs);
    timer.unref();
    return { close: () => clearInterval(timer) };
  }

  /** Where to look, and the end of it: for error messages. */
  lastWords(lines = 15): string {
    return `the end of ${this.logFile}:\n${this.log().trimEnd().split('\n').slice(-lines).join('\n')}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  private mustLive(action: string): void {
    if (!this.alive) throw new Error(`cannot ${action} ${this.name}: it has ended; ${this.lastWords()}`);
  }
}

export function showStatus(status: ExitStatus): string {
  return status.signal === null ? `code ${status.code}` : status.signal;
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** Gives each line of a growing file once. Counts in bytes: a read may end in the middle of a character. */
class LineReader {
  private rest = Buffer.alloc(0);

  constructor(
    private readonly file: string,
    private offset: number,
  ) {}

  /** The complete lines since the last call; with `last`, an incomplete one too. */
  read(last: boolean): string[] {
    const bytes = bytesFrom(this.file, this.offset);
    this.offset += bytes.length;
    const all = Buffer.concat([this.rest, bytes]);
    const end = last ? all.length : all.lastIndexOf('\n') + 1;
    this.rest = all.subarray(end);
    const lines = all.subarray(0, end).toString('utf8').split('\n');
    if (lines.at(-1) === '') lines.pop();
    return lines;
  }
}

function bytesFrom(path: string, start: number): Buffer {
  const file = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - start));
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, start));
  } finally {
    closeSync(file);
  }
}
