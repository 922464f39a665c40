import { mkdir, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { asError } from '../kernel/errors.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';

const PREFIX = 'taskmanager-';

/**
 * The folder in which one worker process keeps state on disk and local copies of checkpoints: gone when it
 * ends, and when it was killed, with the start of the next worker on this machine.
 *
 * Several workers may use one parent. Whether the owner of a folder lives is asked of the kernel: it holds an
 * abstract Unix socket of the folder's name, taken before the folder is made. Elsewhere than on Linux the
 * process id in the name is asked for.
 */
export class WorkerDirectory implements Closeable {
  private closing: Promise<void> | undefined;

  private constructor(
    readonly path: string,
    private readonly release: () => void,
  ) {}

  static async open(parent: string, deps: { readonly random: Random; readonly log: Logger }): Promise<WorkerDirectory> {
    const { random, log } = deps;
    await removeAbandoned(parent, log);
    const name = `${PREFIX}${here()}-${process.pid}-${random.hex(4)}`;
    const release = await hold(name);
    const path = join(parent, name);
    await mkdir(path, { recursive: true, mode: 0o700 });
    return new WorkerDirectory(path, release);
  }

  close(): Promise<void> {
    this.closing ??= rm(this.path, { recursive: true, force: true }).finally(this.release);
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Below which each slot's thread has a folder of its own. */
export function scratchDirectory(workerDirectory: string): string {
  return join(workerDirectory, 'slots');
}

/** Where all slots keep local copies of state, by job. */
export function localCopiesDirectory(workerDirectory: string): string {
  return join(workerDirectory, 'local-state');
}

/** A failure costs space, which the next start may win back. */
async function removeAbandoned(parent: string, log: Logger): Promise<void> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  for (const name of await readdir(parent)) {
    const pid = Number(new RegExp(`^${PREFIX}${here()}-(\\d+)-[0-9a-f]+$`).exec(name)?.[1]);
    if (Number.isNaN(pid) || (await isAlive(name, pid))) continue;
    try {
      await rm(join(parent, name), { recursive: true, force: true });
      log.info({ directory: name }, 'removed what a killed worker left');
    } catch (error) {
      log.warn({ err: asError(error), directory: name }, 'what a killed worker left could not be removed');
    }
  }
}

/** Folders of other machines, should they share the parent, are theirs. Letters and digits, for the pattern's sake. */
function here(): string {
  return hostname()
    .replaceAll(/[^A-Za-z0-9]/g, '_')
    .slice(0, 40);
}

async function hold(name: string): Promise<() => void> {
  const server = createServer((socket) => socket.destroy());
  server.unref();
  return new Promise((resolve) => {
    // Where there are no such sockets the process id has to do.
    server.on('error', () => resolve(() => undefined));
    if (process.platform !== 'linux') resolve(() => undefined);
    else server.listen({ path: socketOf(name), exclusive: true }, () => resolve(() => void server.close()));
  });
}

function isAlive(name: string, pid: number): Promise<boolean> {
  if (process.platform !== 'linux') return Promise.resolve(isProcessAlive(pid));
  const server = createServer();
  return new Promise((resolve) => {
    server.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EADDRINUSE' || isProcessAlive(pid)));
    server.listen({ path: socketOf(name), exclusive: true }, () => server.close(() => resolve(false)));
  });
}

function isProcessAlive(pid: number): boolean {
  // In a container every start may get the same id: then the folder is of a life before this one.
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Another user's process is alive, too.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function socketOf(name: string): string {
  return `\0millrace-${name}`;
}
