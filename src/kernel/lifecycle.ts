import type { Logger } from './log.ts';
import { asError } from './errors.ts';

/** Started once by its `static start`, closed once. `close` is idempotent. */
export interface Closeable extends AsyncDisposable {
  close(): Promise<void>;
}

/**
 * The named owner of background promises: none floats. A failure is logged with its name; `drain`
 * waits for all, so that a component that has closed does nothing more.
 */
export class BackgroundTasks {
  private readonly running = new Set<Promise<void>>();

  constructor(private readonly log: Logger) {}

  run(name: string, work: () => Promise<void>): void {
    // `then` runs `work` in a later microtask, so `promise` is assigned before it can end.
    const promise: Promise<void> = Promise.resolve()
      .then(work)
      .catch((error: unknown) => this.log.error({ err: asError(error), task: name }, 'background task failed'))
      .finally(() => this.running.delete(promise));
    this.running.add(promise);
  }

  get size(): number {
    return this.running.size;
  }

  async drain(): Promise<void> {
    while (this.running.size > 0) await Promise.all(this.running);
  }
}

/** Closes in reverse order of adding; every one is closed even when one fails, then the first failure is thrown. */
export class CloseStack {
  private readonly steps: { name: string; close: () => Promise<void> | void }[] = [];
  private closing: Promise<void> | undefined;

  add(name: string, close: () => Promise<void> | void): void {
    this.steps.push({ name, close });
  }

  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  private async closeAll(): Promise<void> {
    let first: Error | undefined;
    for (let step = this.steps.pop(); step !== undefined; step = this.steps.pop()) {
      try {
        await step.close();
      } catch (error) {
        first ??= new Error(`closing ${step.name} failed`, { cause: error });
      }
    }
    if (first !== undefined) throw first;
  }
}
