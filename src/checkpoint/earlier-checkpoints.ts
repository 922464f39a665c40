import { untilCalm } from '../kernel/calm.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, isMillraceError } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { CheckpointIdCounter } from './ports.ts';

const BOUNDARY_RETRY_MS = 500;

export interface EarlierCheckpointsDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly counter: CheckpointIdCounter;
  readonly token: FencingToken;
  /** Runs `work` in the owner's turn, in order; drops it once the owner has closed. */
  readonly enqueue: (work: () => void) => void;
  readonly onFenced: (reason: string) => void;
  /** Tells the tasks that nothing up to this id is in progress any more. */
  readonly abortUpTo: (boundaryId: number) => void;
  readonly signal: AbortSignal;
}

/**
 * What earlier leaders had in flight when they died: it will never complete, and the tasks that were adopted wait for
 * it. They are told by an id of our own that is never used for a checkpoint: higher than all before, lower than all
 * of ours. Nobody hurries for that: while a new leader takes over it has jobs to adopt.
 */
export class EarlierCheckpoints {
  private calm: Promise<void> | undefined;
  private reserving: Promise<void> | undefined;
  private boundaryId: number | undefined;

  constructor(private readonly deps: EarlierCheckpointsDeps) {}

  /** Whether tasks of an earlier leader were adopted in this term. */
  get exist(): boolean {
    return this.reserving !== undefined;
  }

  /** Before it has resolved no id may be taken for a checkpoint. */
  async reserved(): Promise<void> {
    await this.reserving;
  }

  /** In every run anew: the tasks that hear of it may be others. */
  abort(): void {
    if (this.boundaryId !== undefined) this.deps.abortUpTo(this.boundaryId);
    else this.reserving ??= this.reserve();
  }

  /** Resolves once the new leader has time for what only has to be done some time. */
  afterTakeover(): Promise<void> {
    this.calm ??= untilCalm(this.deps.clock, this.deps.signal);
    return this.calm;
  }

  private async reserve(): Promise<void> {
    const { clock, counter, token, log, signal } = this.deps;
    await this.afterTakeover();
    while (!signal.aborted) {
      try {
        const id = await counter.next(token);
        this.deps.enqueue(() => {
          this.boundaryId = id;
          this.abort();
        });
        return;
      } catch (error) {
        if (isMillraceError(error, 'FENCED') || isMillraceError(error, 'NOT_LEADER')) {
          this.deps.onFenced(asError(error).message);
          return;
        }
        log.warn({ err: asError(error) }, 'checkpoints of earlier leaders cannot be aborted yet');
        await sleep(clock, BOUNDARY_RETRY_MS, signal);
      }
    }
  }
}
