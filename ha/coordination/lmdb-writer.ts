import type { Clock } from '../../src/kernel/clock.ts';
import { asError, MillraceError, UnavailableError } from '../../src/kernel/errors.ts';
import type { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import { type CallKind, lostAnswer } from './lost-answer.ts';
import type { Release, WriterLock } from './writer-lock.ts';

/** A queue of writes longer than this means that the disk has stopped: refuse rather than grow. */
const WRITES_MAX = 1_024;
/** Writes that share one transaction, and so one flush to disk. */
const BATCH_MAX = 256;
export interface LmdbWriterDeps {
  readonly clock: Clock;
  readonly tasks: BackgroundTasks;
  readonly lock: WriterLock;
  readonly description: string;
  readonly deadlineMs: number;
  /** Runs `work` inside one LMDB transaction, which is undone when `work` throws; resolves when it is durable. */
  readonly transaction: (work: () => void) => Promise<unknown>;
}

/**
 * Takes writes one after the other through the lock into LMDB, many at a time when many wait.
 *
 * Invariants:
 *   B4. The event loop never waits for a lock. The lock is tried on and on; LMDB's own, which is
 *       then free, and the flush to disk are LMDB's thread's business. So a stopped peer that holds
 *       the lock costs `UNAVAILABLE`, not a frozen process.
 *   B5. A write that was given up before it ran does not run later.
 */
export class LmdbWriter {
  private readonly waiting: WriteCall[] = [];
  private pumping = false;

  constructor(private readonly deps: LmdbWriterDeps) {}

  /** A MillraceError that `step` returns is thrown to the caller, and what the step had written stays. */
  async write<T>(kind: CallKind, step: () => T | MillraceError): Promise<T> {
    const { clock, description, deadlineMs } = this.deps;
    if (this.waiting.length >= WRITES_MAX)
      throw new UnavailableError(`${description}: ${this.waiting.length} writes are waiting`, {
        hint: 'The disk may have stalled.',
      });
    let outcome: T | MillraceError | undefined;
    const call = new WriteCall(() => {
      outcome = step();
    });
    const timer = clock.schedule(deadlineMs, () => call.giveUp());
    this.waiting.push(call);
    this.pump();
    const end = await call.ended;
    timer.cancel();
    switch (end.kind) {
      case 'committed':
        if (outcome instanceof MillraceError) throw outcome;
        return outcome as T;
      case 'failed':
        if (end.error instanceof MillraceError) throw end.error;
        throw new UnavailableError(`${description}: ${kind} failed: ${end.error.message}`, {
          hint: 'Look for a full disk or a damaged file system.',
          cause: end.error,
        });
      case 'not-run':
        throw new UnavailableError(`${description}: ${kind} did not get the write lock within ${deadlineMs} ms`, {
          hint: 'A process of this cluster may be stopped while it holds the lock.',
        });
      case 'in-doubt':
        throw lostAnswer(kind, `${description}: ${kind} was not confirmed within ${deadlineMs} ms`, end.cause);
    }
  }

  private pump(): void {
    if (this.pumping) return;
    this.pumping = true;
    this.deps.tasks.run('writes', async () => {
      try {
        while (this.next() !== undefined) {
          const release = await this.deps.lock.acquire(() => this.next() !== undefined);
          if (release !== undefined) await this.runBatch(release);
        }
      } finally {
        this.pumping = false;
      }
    });
  }

  private async runBatch(release: Release): Promise<void> {
    const batch: WriteCall[] = [];
    for (let call = this.next(); call !== undefined && batch.length < BATCH_MAX; call = this.next()) {
      batch.push(call);
      this.waiting.shift();
    }
    let ran = false;
    try {
      await this.deps.transaction(() => {
        for (const call of batch) call.run();
        ran = true;
      });
      for (const call of batch) call.end({ kind: 'committed' });
    } catch (thrown) {
      const error = asError(thrown);
      // An error inside the transaction has undone it. An error after it, while committing, leaves doubt.
      for (const call of batch) call.end(ran ? { kind: 'in-doubt', cause: error } : { kind: 'failed', error });
    } finally {
      release();
    }
  }

  /** The first write that still wants to run. */
  private next(): WriteCall | undefined {
    while (this.waiting[0]?.givenUp === true) this.waiting.shift();
    return this.waiting[0];
  }
}

type WriteEnd =
  | { readonly kind: 'committed' }
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'not-run' }
  | { readonly kind: 'in-doubt'; readonly cause?: Error };

/** One write between its caller, who may give up, and LMDB, which runs it when it has the lock. */
class WriteCall {
  readonly ended: Promise<WriteEnd>;
  private resolve: (end: WriteEnd) => void = () => undefined;
  private phase: 'waiting' | 'ran' | 'given-up' = 'waiting';

  constructor(private readonly step: () => void) {
    this.ended = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  get givenUp(): boolean {
    return this.phase === 'given-up';
  }

  run(): void {
    if (this.phase !== 'waiting') return;
    this.step();
    this.phase = 'ran';
  }

  end(end: WriteEnd): void {
    this.resolve(end);
  }

  giveUp(): void {
    if (this.phase === 'ran') {
      this.end({ kind: 'in-doubt' });
      return;
    }
    this.phase = 'given-up';
    this.end({ kind: 'not-run' });
  }
}
