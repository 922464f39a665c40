/**
 * Work in order, one piece at a time, never inside another piece. While suspended it is kept; after
 * `close` it is dropped.
 */
export class SerialMailbox {
  private queue: (() => void)[] = [];
  private draining = false;
  private suspended = false;
  private closed = false;

  /** `onBroken` is told of what a piece of work threw: a bug, after which nothing runs any more. */
  constructor(private readonly onBroken: (error: unknown) => void) {}

  get size(): number {
    return this.queue.length;
  }

  get isOpen(): boolean {
    return !this.closed;
  }

  post(work: () => void): void {
    if (this.closed) return;
    this.queue.push(work);
    this.drain();
  }

  suspend(): void {
    this.suspended = true;
  }

  resume(): void {
    this.suspended = false;
    this.drain();
  }

  close(): void {
    this.closed = true;
    this.queue = [];
  }

  private drain(): void {
    if (this.draining) return;
    this.draining = true;
    try {
      for (let next = this.take(); next !== undefined; next = this.take()) next();
    } catch (error) {
      this.close();
      this.onBroken(error);
    } finally {
      this.draining = false;
    }
  }

  private take(): (() => void) | undefined {
    return this.suspended || this.closed ? undefined : this.queue.shift();
  }
}
