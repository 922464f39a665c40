import type { CheckpointMetadata, CompletedCheckpoint } from '../contracts/checkpoint.ts';
import { type Clock, sleep } from '../kernel/clock.ts';
import { asError, type ErrorInfo, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import { type Backoff, backoffMs } from '../kernel/retry.ts';
import type { Completion, CompletedCheckpointStore } from './ports.ts';

const COMMIT_BACKOFF: Backoff = { initialMs: 100, maxMs: 2_000, multiplier: 2 };
/** How often an error that says nothing about the outcome is met with a read-back and another try. */
const UNCLEAR_ATTEMPTS_MAX = 8;

export type CommitOutcome =
  | { readonly kind: 'completed'; readonly completed: CompletedCheckpoint }
  /** No pointer was written: certain, or with `keepObjects` nearly so. */
  | { readonly kind: 'failed'; readonly error: ErrorInfo; readonly keepObjects: boolean }
  | { readonly kind: 'fenced'; readonly reason: string }
  /** The caller has closed; the outcome is the next leader's to read. */
  | { readonly kind: 'closed' };

/**
 * Makes a checkpoint durable and does not come back before its fate is known.
 *
 * A lost answer is followed by reading back, and by another try only when the pointer is not there;
 * once there is doubt only the pointer's presence, a success or a fence ends it, however long that
 * takes. A store that is plainly away is retried for as long as `worthwhile` says.
 */
export async function commitCheckpoint(
  deps: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Logger;
    readonly store: CompletedCheckpointStore;
  },
  metadata: CheckpointMetadata,
  token: FencingToken,
  options: {
    readonly signal: AbortSignal;
    readonly worthwhile: () => boolean;
    readonly completion?: Completion;
  },
): Promise<CommitOutcome> {
  const { clock, random, log, store } = deps;
  const { checkpointId } = metadata;
  let doubt = false;
  let unclear = 0;
  for (let attempt = 0; ; attempt++) {
    if (options.signal.aborted) return { kind: 'closed' };
    try {
      return { kind: 'completed', completed: await store.add(metadata, token, options.completion) };
    } catch (error) {
      if (options.signal.aborted) return { kind: 'closed' };
      const info = toErrorInfo(error);
      log.warn({ err: asError(error), checkpointId, attempt }, 'checkpoint could not be completed');
      if (isMillraceError(error, 'FENCED') || isMillraceError(error, 'NOT_LEADER')) {
        return { kind: 'fenced', reason: info.message };
      }
      // The job's record is gone: whoever removed it cleans up what it left.
      if (info.code === 'NOT_FOUND') return { kind: 'failed', error: info, keepObjects: true };
      if (info.code === 'TOO_LARGE' || info.code === 'INVALID_ARGUMENT') {
        if (!doubt) return { kind: 'failed', error: info, keepObjects: false };
      } else if (info.code === 'UNAVAILABLE') {
        if (!doubt && !options.worthwhile()) return { kind: 'failed', error: info, keepObjects: false };
      } else if (info.code === 'UNKNOWN_OUTCOME' || info.code === 'TIMEOUT') {
        doubt = true;
      } else {
        unclear++;
      }
      await sleep(clock, backoffMs(COMMIT_BACKOFF, Math.min(attempt, 16), random), options.signal);
      const found = doubt || unclear > 0 ? await findPointer(deps, checkpointId) : 'absent';
      if (found !== 'absent' && found !== 'unreadable') {
        return { kind: 'completed', completed: { metadata, metadataKey: found.metadataKey, metadataBytes: 0 } };
      }
      if (found === 'absent' && !doubt && unclear >= UNCLEAR_ATTEMPTS_MAX) {
        return { kind: 'failed', error: info, keepObjects: true };
      }
    }
  }
}

async function findPointer(
  deps: { readonly log: Logger; readonly store: CompletedCheckpointStore },
  checkpointId: number,
): Promise<{ readonly metadataKey: string } | 'absent' | 'unreadable'> {
  try {
    const ids = await deps.store.listIds();
    // Ids are reserved and used once, so a pointer under this id can only be ours.
    return ids.find((entry) => entry.checkpointId === checkpointId) ?? 'absent';
  } catch (error) {
    deps.log.warn({ err: asError(error), checkpointId }, 'completed checkpoints could not be read back');
    return 'unreadable';
  }
}
