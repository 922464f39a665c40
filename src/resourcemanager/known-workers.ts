import type { Clock, Timer } from '../kernel/clock.ts';
import type { TaskManagerId } from '../kernel/ids.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { HeartbeatMonitor, type HeartbeatOptions } from './heartbeat-monitor.ts';
import type { TaskManagerConnection } from './registered-worker.ts';

/** A worker that was there before this term began, as the coordination store or a former leader knows it. */
export interface KnownWorker {
  readonly taskManagerId: TaskManagerId;
  readonly rpcAddress: string;
}

export interface KnownWorkersDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly background: BackgroundTasks;
  readonly connect: (rpcAddress: string) => TaskManagerConnection;
  readonly suspended: () => boolean;
  readonly fenced: (taskManagerId: TaskManagerId, error: Error) => void;
  /** Its process is dead, or it has been silent for too long. */
  readonly gone?: ((taskManagerId: TaskManagerId) => void) | undefined;
  /** Called once: nobody is expected any more. */
  readonly settled: () => void;
}

/**
 * Workers that a new leader expects to register. Each is called, because one whose process is dead will never
 * come: two refused connections take some fifty milliseconds, waiting for it in vain would take seconds. Whoever
 * neither comes nor is proven dead is waited for until the time is over.
 */
export class KnownWorkers {
  private readonly expected = new Map<TaskManagerId, { readonly stop: () => void }>();
  private readonly deadline: Timer;
  private complete = false;
  private done = false;

  constructor(
    private readonly deps: KnownWorkersDeps,
    workers: readonly KnownWorker[] | undefined,
    options: HeartbeatOptions & { readonly graceMs: number },
  ) {
    this.deadline = deps.clock.schedule(options.graceMs, () => this.finish());
    // Unknown who is there: then only time can tell.
    if (workers === undefined) return;
    for (const worker of workers) this.expect(worker, options);
    this.complete = true;
    this.check();
  }

  get settled(): boolean {
    return this.done;
  }

  /** It registered, or was lost again. */
  seen(taskManagerId: TaskManagerId): void {
    const entry = this.expected.get(taskManagerId);
    if (entry === undefined) return;
    this.expected.delete(taskManagerId);
    entry.stop();
    this.check();
  }

  close(): void {
    this.done = true;
    this.deadline.cancel();
    for (const { stop } of this.expected.values()) stop();
    this.expected.clear();
  }

  private expect({ taskManagerId, rpcAddress }: KnownWorker, options: HeartbeatOptions): void {
    const { clock, log, background, suspended } = this.deps;
    let connection: TaskManagerConnection;
    try {
      connection = this.deps.connect(rpcAddress);
    } catch (error) {
      log.warn({ taskManagerId, rpcAddress, err: error }, 'a known worker has an unusable address');
      return;
    }
    const monitor = new HeartbeatMonitor(
      {
        clock,
        log: log.child({ taskManagerId }),
        suspended,
        ask: () => connection.heartbeat({}),
        mark: () => 0,
        answered: (report) => {
          // Its address is another's by now. Otherwise it lives, and will register.
          if (report.taskManagerId !== taskManagerId) this.seen(taskManagerId);
        },
        dead: (reason) => {
          log.info({ taskManagerId, rpcAddress, reason }, 'known worker is not expected any more');
          this.deps.gone?.(taskManagerId);
          this.seen(taskManagerId);
        },
        fenced: (error) => this.deps.fenced(taskManagerId, error),
      },
      options,
    );
    this.expected.set(taskManagerId, {
      stop: () => {
        monitor.close();
        background.run('close connection to known worker', () => connection.close());
      },
    });
    monitor.probe();
  }

  private check(): void {
    if (this.complete && this.expected.size === 0) this.finish();
  }

  private finish(): void {
    if (this.done) return;
    const missing = [...this.expected.keys()];
    if (missing.length > 0) this.deps.log.warn({ missing }, 'known workers have not registered in time');
    // What they ran is given up by now; if they live, they register again.
    for (const taskManagerId of missing) this.deps.gone?.(taskManagerId);
    this.close();
    this.deps.settled();
  }
}
