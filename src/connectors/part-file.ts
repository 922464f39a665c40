import { type FileHandle, open, rm } from 'node:fs/promises';
import { asError } from '../kernel/errors.ts';

/** Rows are gathered up to this many characters before they are written. */
const BATCH_CHARS = 64 * 1024;
/** With more than this on its way to the disk a writer is asked to wait, until half of it is there. */
const BACKLOG_BYTES_MAX = 1024 * 1024;

/** Bytes on their way to the disk or the store, over all parts of one writer: its backpressure. */
export class Backlog {
  private bytes = 0;
  private waiting: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;
  /** The first failure of any part: the writer must not go on. */
  failure: Error | undefined;

  constructor(private readonly bytesMax = BACKLOG_BYTES_MAX) {}

  ready(): Promise<void> | undefined {
    return this.waiting?.promise;
  }

  add(bytes: number): void {
    this.bytes += bytes;
    if (this.bytes <= this.bytesMax || this.waiting !== undefined) return;
    let resolve: () => void = () => {};
    const promise = new Promise<void>((settle) => {
      resolve = settle;
    });
    this.waiting = { promise, resolve };
  }

  remove(bytes: number): void {
    this.bytes -= bytes;
    if (this.bytes <= this.bytesMax / 2) this.wake();
  }

  fail(error: Error): void {
    this.failure ??= error;
    this.wake();
  }

  private wake(): void {
    this.waiting?.resolve();
    this.waiting = undefined;
  }
}

/** One file that is being written. Rows are taken synchronously; the disk follows. */
export class PartFile {
  private text = '';
  private file: FileHandle | undefined;
  private written = 0;
  private sealed = false;
  /** All steps on the file, one after the other. Never rejects: a failure is kept in the backlog. */
  private steps: Promise<void>;

  constructor(
    readonly path: string,
    private readonly backlog: Backlog,
  ) {
    // `wx`: should the name be taken against all expectation, nothing of another writer is touched.
    this.steps = this.guard(async () => {
      this.file = await open(path, 'wx');
    });
  }

  /** Bytes taken so far; rows not yet encoded count by their characters. */
  get size(): number {
    return this.written + this.text.length;
  }

  append(row: string | Uint8Array): void {
    if (typeof row === 'string') {
      this.text += `${row}\n`;
      if (this.text.length >= BATCH_CHARS) this.flush();
    } else {
      this.flush();
      this.send(Buffer.concat([row, Buffer.from('\n')]));
    }
  }

  /** Takes no more rows; they go to the disk for good and the file is closed. */
  seal(): void {
    if (this.sealed) return;
    this.sealed = true;
    this.flush();
    this.step(async () => {
      try {
        await this.file?.sync();
      } finally {
        await this.close();
      }
    });
  }

  /** Seals, and resolves with the size once that is done. */
  async finish(): Promise<number> {
    this.seal();
    await this.steps;
    if (this.backlog.failure !== undefined) throw this.backlog.failure;
    return this.written;
  }

  /** Removes the file, whatever state it is in. */
  async discard(): Promise<void> {
    this.text = '';
    await this.steps;
    await this.close();
    await rm(this.path, { force: true });
  }

  private async close(): Promise<void> {
    const { file } = this;
    this.file = undefined;
    await file?.close();
  }

  private flush(): void {
    if (this.text === '') return;
    const bytes = Buffer.from(this.text);
    this.text = '';
    this.send(bytes);
  }

  private send(bytes: Buffer): void {
    this.written += bytes.length;
    this.backlog.add(bytes.length);
    this.step(async () => {
      try {
        // `appendFile` writes all of it, also when the kernel takes less at a time.
        await this.file?.appendFile(bytes);
      } finally {
        this.backlog.remove(bytes.length);
      }
    });
  }

  private step(work: () => Promise<void>): void {
    this.steps = this.steps.then(() => this.guard(work));
  }

  private async guard(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.backlog.fail(asError(error));
    }
  }
}
