import type { Writable } from 'node:stream';
import { MillraceError } from '../kernel/errors.ts';

/** Lines are gathered up to this many characters before they go to the stream in one write. */
const BATCH_CHARS = 16_384;

/**
 * One stream (stdout, as a rule) shared by all print writers of this thread: one set of listeners
 * however many subtasks print, lines never interleave, and backpressure reaches each of them.
 */
export class SharedOutput {
  private static readonly byStream = new WeakMap<Writable, SharedOutput>();

  private users = 0;
  private pending = '';
  private flushQueued = false;
  private failure: Error | undefined;
  private draining: PromiseWithResolve | undefined;

  private constructor(private readonly stream: Writable) {}

  /** Each `acquire` is undone by one `release`. */
  static acquire(stream: Writable): SharedOutput {
    let shared = SharedOutput.byStream.get(stream);
    if (shared === undefined) {
      shared = new SharedOutput(stream);
      SharedOutput.byStream.set(stream, shared);
    }
    if (shared.users++ === 0) shared.listen();
    return shared;
  }

  release(): void {
    if (--this.users > 0) return;
    this.stream.off('drain', this.onDrain);
    this.stream.off('error', this.onError);
    this.stream.off('close', this.onClose);
    // A stream that failed once (a reader that went away) may be another one at the next job.
    SharedOutput.byStream.delete(this.stream);
  }

  /** `line` without its newline. Throws when the stream has failed. */
  writeLine(line: string): void {
    if (this.failure !== undefined) throw this.failed();
    this.pending += `${line}\n`;
    if (this.pending.length >= BATCH_CHARS) {
      this.send();
    } else if (!this.flushQueued) {
      this.flushQueued = true;
      // After the present slice of work: prompt for a person who watches, yet one write for many lines.
      queueMicrotask(() => {
        this.flushQueued = false;
        this.send();
      });
    }
  }

  /** Undefined when the stream takes more now. */
  ready(): Promise<void> | undefined {
    return this.draining?.promise;
  }

  /** Resolves when the stream has taken everything written so far. */
  async flush(): Promise<void> {
    const rest = this.pending;
    this.pending = '';
    if (this.failure !== undefined) throw this.failed();
    await new Promise<void>((resolve, reject) => {
      const onClose = () => reject(this.failed());
      this.stream.once('close', onClose);
      // An empty write is called back after all earlier ones.
      this.write(rest, (error) => {
        this.stream.off('close', onClose);
        if (error) {
          this.failure ??= error;
          reject(this.failed());
        } else {
          resolve();
        }
      });
    });
  }

  private send(): void {
    if (this.pending === '' || this.failure !== undefined) return;
    const batch = this.pending;
    this.pending = '';
    this.write(batch);
  }

  private write(text: string, done?: (error: Error | null | undefined) => void): void {
    if (!this.stream.write(text, done)) this.draining ??= promiseWithResolve();
  }

  private listen(): void {
    this.stream.on('drain', this.onDrain);
    this.stream.on('error', this.onError);
    this.stream.on('close', this.onClose);
  }

  private readonly onDrain = () => {
    this.draining?.resolve();
    this.draining = undefined;
  };

  private readonly onError = (error: Error) => {
    this.failure ??= error;
    // Whoever waits for room learns of the failure with its next write.
    this.onDrain();
  };

  private readonly onClose = () => this.onError(new Error('the stream was closed'));

  private failed(): MillraceError {
    return new MillraceError('UNAVAILABLE', 'printing failed: nobody reads the output any more', {
      hint: 'keep the reader of the standard output open, or use a file sink',
      cause: this.failure,
    });
  }
}

interface PromiseWithResolve {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

function promiseWithResolve(): PromiseWithResolve {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
