import { stat } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { type Clock, sleep } from '../../src/kernel/clock.ts';
import type { Logger } from '../../src/kernel/log.ts';

/** Gives the lock back; once. */
export type Release = () => void;

/** A holder tells those who wait when it is done; this is for the case that it cannot. */
const TRY_AGAIN_MS = 20;
/** Whoever has just had the lock while others waited lets them go first. */
const COURTESY_MS = 2;

/**
 * A lock between the processes of one machine that no one ever sleeps on in the kernel, and that the
 * kernel gives back when its holder dies: the exclusive name of an abstract Unix socket. Those who
 * wait connect to it and try again when the connection ends.
 *
 * It stands before LMDB's own lock, which alone keeps the store correct, because waiting for that
 * one is not safe against kill -9: a process that dies between giving a robust mutex back and waking
 * the next in line leaves a sleeper that nobody wakes (seen once in some 250 kills). Who holds this
 * lock finds LMDB's free, or its owner dead, and never sleeps on it.
 */
export class WriterLock {
  /** Processes that use the same name exclude each other, within one network namespace. */
  private readonly path: string;
  private supported = process.platform === 'linux';
  private yields = false;

  private constructor(
    name: string,
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {
    this.path = `\0${name}`;
  }

  /** The lock of what lies in `directory`, by whatever path that is reached. */
  static async of(directory: string, clock: Clock, log: Logger): Promise<WriterLock> {
    const { dev, ino } = await stat(directory, { bigint: true });
    return new WriterLock(`millrace-coordination-${dev}-${ino}`, clock, log);
  }

  /** Tries again and again while `wanted`; undefined when it is wanted no more. */
  async acquire(wanted: () => boolean): Promise<Release | undefined> {
    if (this.yields) await sleep(this.clock, COURTESY_MS);
    this.yields = false;
    while (wanted()) {
      const release = await this.tryAcquire();
      if (release !== undefined) return release;
      await this.holderDone();
    }
    return undefined;
  }

  /** Undefined when somebody else, in this process or another, holds it. */
  private tryAcquire(): Promise<Release | undefined> {
    if (!this.supported) return Promise.resolve(() => undefined);
    const waiting = new Set<Socket>();
    const server = createServer((socket) => {
      waiting.add(socket);
      socket.unref();
      socket.on('error', () => undefined); // It went away; `close` follows.
      socket.on('close', () => waiting.delete(socket));
    });
    server.unref();
    return new Promise((resolve) => {
      server.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'EADDRINUSE') {
          resolve(undefined);
          return;
        }
        // A sandbox without Unix sockets. LMDB's own lock still keeps the store correct.
        this.supported = false;
        this.log.warn({ err: error }, 'no writer lock here: a killed process may block the others until one restarts');
        resolve(() => undefined);
      });
      const release = () => {
        this.yields = waiting.size > 0;
        server.close();
        for (const socket of waiting) socket.destroy();
      };
      server.listen({ path: this.path, exclusive: true }, () => resolve(release));
    });
  }

  /** Resolves when the holder has given the lock back or has died, or after a while. */
  private holderDone(): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect({ path: this.path });
      let full = false;
      const timer = this.clock.schedule(TRY_AGAIN_MS, () => {
        socket.destroy();
        resolve();
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        // Refused or reset: the holder is done. Anything else (a stopped holder's full backlog) is no news.
        full = error.code !== 'ECONNREFUSED' && error.code !== 'ECONNRESET';
      });
      socket.on('close', () => {
        if (full) return;
        timer.cancel();
        resolve();
      });
      socket.resume();
    });
  }
}
