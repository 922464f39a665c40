import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../kernel/clock.ts';
import { asError, MillraceError } from '../kernel/errors.ts';
import { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import type { SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import type { OpenSlotRequest, SlotHost } from './slot-host.ts';
import { SlotThread } from './slot-thread.ts';

export interface ThreadSlotHostOptions {
  /** JavaScript file that calls `runSlotWorker`. */
  readonly workerUrl: URL;
  /** Plain data for that file's `prepare`. */
  readonly workerData: unknown;
  /** JavaScript heap that one slot's live data may take. V8 may use half as much again for garbage. */
  readonly heapBytes: number;
  /** Each thread may use a folder below it, by its thread id; it is removed when the thread has ended, however it did. */
  readonly scratchDirectory?: string;
  readonly listenHost?: string;
  readonly advertisedHost?: string;
  /** Threads kept loaded for slots to come, at most. Default 1. */
  readonly spareThreads?: number;
  /** How many slots there are: no more threads are kept than slots are free, but one that may take the place of another. */
  readonly slots?: number;
  /** Default 500 ms. */
  readonly reportIntervalMs?: number;
  /** How long a thread may take to end by itself before it is terminated. Default 500 ms. */
  readonly closeGraceMs?: number;
}

export interface ThreadSlotHostDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * One worker thread per slot. A thread serves one job and ends with it; a spare one, its code already
 * loaded, makes the next allocation quick. What user code does to its thread (endless loop, heap full,
 * `process.exit`) stays in that thread.
 */
export class ThreadSlotHost implements SlotHost {
  /** Loaded or loading. */
  private readonly spares = new Set<SlotThread>();
  private readonly threads = new Set<SlotThread>();
  /** Slots that wait for their thread. */
  private opening = 0;
  private readonly background: BackgroundTasks;
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly deps: ThreadSlotHostDeps,
    private readonly options: ThreadSlotHostOptions,
  ) {
    this.background = new BackgroundTasks(deps.log);
  }

  /** Resolves once a first thread has loaded, so that a broken entry file is found at start. */
  static async start(deps: ThreadSlotHostDeps, options: ThreadSlotHostOptions): Promise<ThreadSlotHost> {
    const host = new ThreadSlotHost(deps, options);
    const first = host.createThread();
    try {
      await first.loaded;
    } catch (error) {
      await host.close();
      throw new MillraceError('CONFIGURATION', `slot threads cannot start: ${asError(error).message}`, {
        cause: error,
      });
    }
    if (host.spareTarget > 0) host.spares.add(first);
    else host.background.run('close first thread', () => first.close());
    host.refillSpares();
    return host;
  }

  async open(request: OpenSlotRequest): Promise<SlotRuntimePort> {
    if (this.closing !== undefined) throw new MillraceError('CLOSED', 'the slot host is closed');
    const thread = this.takeSpare() ?? this.createThread();
    this.opening += 1;
    const { name, listenPort, jobId, events } = request;
    const { listenHost, advertisedHost } = this.options;
    const hosts = {
      ...(listenHost === undefined ? {} : { listenHost }),
      ...(advertisedHost === undefined ? {} : { advertisedHost }),
    };
    try {
      await thread.assign(jobId, { name, listenPort, ...hosts }, events);
      // Its slot is free again then.
      this.background.run('load spare threads', async () => {
        await thread.exited;
        this.refillSpares();
      });
      return thread;
    } catch (error) {
      await thread.close();
      throw error;
    } finally {
      this.opening -= 1;
      this.refillSpares();
    }
  }

  close(): Promise<void> {
    this.closing ??= (async () => {
      await Promise.all([...this.threads].map((thread) => thread.close()));
      await this.background.drain();
    })();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private get spareTarget(): number {
    const { spareThreads = 1, slots = Number.POSITIVE_INFINITY } = this.options;
    const used = this.threads.size - this.spares.size;
    return Math.min(spareThreads, Math.max(1, slots - used));
  }

  private createThread(): SlotThread {
    const { workerUrl, workerData, heapBytes, scratchDirectory } = this.options;
    const { reportIntervalMs = 500, closeGraceMs = 500 } = this.options;
    const thread = new SlotThread(this.deps.clock, {
      workerUrl,
      workerData,
      heapBytes,
      reportIntervalMs,
      closeGraceMs,
      handOver: (address, port) => [...this.threads].some((neighbour) => neighbour.takeNeighbour(address, port)),
    });
    this.threads.add(thread);
    this.background.run('forget thread', async () => {
      await thread.exited;
      this.threads.delete(thread);
      this.spares.delete(thread);
      if (scratchDirectory !== undefined) {
        await rm(join(scratchDirectory, String(thread.threadId)), { recursive: true, force: true });
      }
    });
    return thread;
  }

  private takeSpare(): SlotThread | undefined {
    const [spare] = this.spares;
    if (spare !== undefined) this.spares.delete(spare);
    return spare;
  }

  /**
   * A spare that fails to load is not tried again before the next slot is opened: no crash loop. While a job waits for
   * threads of its own, the processor is theirs: slots are asked for many at a time after the loss of a worker.
   */
  private refillSpares(): void {
    if (this.opening > 0) return;
    while (this.closing === undefined && this.spares.size < this.spareTarget) {
      const thread = this.createThread();
      this.spares.add(thread);
      this.background.run('load spare thread', () =>
        thread.loaded.catch((error: unknown) => {
          if (this.closing === undefined) this.deps.log.warn({ err: asError(error) }, 'spare slot thread failed');
        }),
      );
    }
  }
}
