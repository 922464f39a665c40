import { assert } from '../../src/kernel/assert.ts';
import { type Clock, sleep } from '../../src/kernel/clock.ts';
import { asError, FencedError, isMillraceError, UnknownOutcomeError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { backoffMs, QUICK_BACKOFF } from '../../src/kernel/retry.ts';
import type { Coordination, Entry, Guard, Op, Revision, TxnResult } from '../coordination/coordination.ts';
import type { ClusterKeys } from './cluster-keys.ts';

/** What is read back: by key, undefined where there is nothing. */
export type Seen = ReadonlyMap<string, Entry | undefined>;

/**
 * One mutation. It must not be able to succeed twice in a row: at least one guard is on a key that `then`
 * changes. Only then may it be sent again after a lost answer.
 */
export interface FencedChange {
  /** For logs and errors: what is being done. */
  readonly what: string;
  readonly guards: readonly Guard[];
  readonly then: readonly Op[];
  /** Read, besides the guarded keys, when a guard fails. */
  readonly alsoRead?: readonly string[];
  /** Whether what is seen shows that this very change has happened, e.g. by its write id. */
  readonly isDone: (seen: Seen) => boolean;
}

export type FencedOutcome =
  | { readonly kind: 'committed' }
  /** A guard other than the leader's failed: nothing was changed by this call. */
  | { readonly kind: 'refused'; readonly seen: Seen };

export interface FencedWriterDeps {
  readonly coordination: Coordination;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Tries after a lost answer; with the store's deadline of 1 s each this bounds a call to about 8 s. */
const ATTEMPTS_MAX = 6;

/**
 * The one way to mutate coordination.
 *
 * Invariants:
 *   F1. Every mutation is guarded by `modRevision(leader) == token` (rule 2 of the protocol).
 *   F2. A lost answer is never taken for a failure: the change is tried again under the same guards
 *       until an answer says what became of it, or `UNKNOWN_OUTCOME` is thrown (rule 6).
 *   F3. `FENCED` means that nothing of this change has happened or ever will: tokens never return.
 *   F4. What was sent before an answer was lost takes no effect after the change was sent again. A guard on a
 *       revision sees to that, because revisions never return. Absence does return: what is created, and removed
 *       again, could be created a second time by a copy that was held up on its way. So creations are
 *       also guarded by `doubt`, a key that is changed before they are sent again.
 */
export class FencedWriter {
  /** The revision of `doubt` as last seen, 0 where there is none. An old one costs another try, nothing else. */
  private doubt: Revision = 0n;

  constructor(private readonly deps: FencedWriterDeps) {}

  /** A name for one write: unique, and recognised when it is read back. */
  newWriteId(): string {
    return this.deps.random.hex(8);
  }

  async commit(token: FencingToken, change: FencedChange): Promise<FencedOutcome> {
    assert(
      change.guards.some((guard) => change.then.some((op) => writes(op, guard.key))),
      `F2: ${change.what} could happen twice: none of its guards is on a key that it changes`,
    );
    const { leader, doubt } = this.deps.keys;
    const creates = !change.guards.some(
      ({ key, modRevision }) => modRevision !== 0n && change.then.some((op) => writes(op, key)),
    );
    const guarded = change.guards.map((guard) => guard.key);
    const readKeys = [...new Set([leader, ...(creates ? [doubt] : []), ...guarded, ...(change.alsoRead ?? [])])];
    let lost: unknown;
    let unanswered = false;
    for (let attempt = 0; ; attempt++) {
      try {
        if (creates && unanswered) await this.castDoubt(token); // F4
        const seenDoubt = this.doubt;
        unanswered = true;
        const result = await this.deps.coordination.txn({
          guards: [
            { key: leader, modRevision: token },
            ...(creates ? [{ key: doubt, modRevision: seenDoubt }] : []),
            ...change.guards,
          ],
          then: change.then,
          otherwise: readKeys.map((key): Op => ({ kind: 'get', key })),
        });
        unanswered = false;
        const outcome = this.judge(token, change, readKeys, result, lost);
        if (outcome.kind === 'committed' || !creates) return outcome;
        const newest = outcome.seen.get(doubt)?.modRevision ?? 0n;
        if (newest === seenDoubt) return outcome;
        // The answer to another write was lost meanwhile: this one has not happened, and says nothing yet.
        this.doubt = newest;
        attempt--;
      } catch (error) {
        // UNAVAILABLE means that this try did not happen; after a lost answer it says nothing of the first.
        const again =
          isMillraceError(error, 'UNKNOWN_OUTCOME') || (lost !== undefined && isMillraceError(error, 'UNAVAILABLE'));
        if (!again) throw error;
        lost ??= error;
        if (attempt + 1 >= ATTEMPTS_MAX)
          throw new UnknownOutcomeError(`${change.what}: the answer was lost and could not be read back`, {
            hint: 'Ask again with the same id: what has happened is not repeated.',
            cause: lost,
          });
        const waitMs = backoffMs(QUICK_BACKOFF, attempt, this.deps.random);
        this.deps.log.warn({ err: asError(error), what: change.what, attempt, waitMs }, 'answer lost, asking again');
        await sleep(this.deps.clock, waitMs);
      }
    }
  }

  /**
   * From here on nothing that was sent under an older `doubt` takes effect. Without leadership nothing is
   * changed: then the token fences what is under way.
   */
  private async castDoubt(token: FencingToken): Promise<void> {
    const { leader, doubt } = this.deps.keys;
    const { succeeded, revision } = await this.deps.coordination.txn({
      guards: [{ key: leader, modRevision: token }],
      then: [{ kind: 'put', key: doubt, value: this.newWriteId() }],
      otherwise: [],
    });
    if (succeeded && revision > this.doubt) this.doubt = revision;
  }

  /**
   * Throws `FencedError` unless `token` leads now; false when another guard fails. Changes nothing:
   * for deciding about objects, which no store fences, from what was known before this call.
   */
  async confirm(token: FencingToken, guards: readonly Guard[] = []): Promise<boolean> {
    const leader = this.deps.keys.leader;
    const result = await this.deps.coordination.txn({
      guards: [{ key: leader, modRevision: token }, ...guards],
      then: [{ kind: 'get', key: leader }],
      otherwise: [{ kind: 'get', key: leader }],
    });
    if (result.succeeded) return true;
    if (result.reads[0]?.modRevision === token) return false;
    throw fenced('confirming leadership', token, result.reads[0]);
  }

  private judge(
    token: FencingToken,
    change: FencedChange,
    readKeys: readonly string[],
    result: TxnResult,
    lost: unknown,
  ): FencedOutcome {
    if (result.succeeded) return { kind: 'committed' };
    const seen: Seen = new Map(readKeys.map((key, index) => [key, result.reads[index]]));
    // Only a lost answer can have left our own change behind.
    if (lost !== undefined && change.isDone(seen)) return { kind: 'committed' };
    const leader = seen.get(this.deps.keys.leader);
    if (leader?.modRevision === token) return { kind: 'refused', seen };
    if (lost === undefined) throw fenced(change.what, token, leader);
    // It may have happened and been changed again by the leader that came after us.
    throw new UnknownOutcomeError(`${change.what}: the answer was lost, and then leadership`, {
      hint: 'Ask the present leader.',
      cause: fenced(change.what, token, leader),
    });
  }
}

function fenced(what: string, token: FencingToken, leader: Entry | undefined): FencedError {
  const now = leader === undefined ? 'nobody leads now' : `token ${leader.modRevision} leads now`;
  return new FencedError(`${what}: token ${token} no longer leads (${now}); nothing was changed`, {
    hint: 'Ask the present leader.',
  });
}

function writes(op: Op, key: string): boolean {
  switch (op.kind) {
    case 'put':
    case 'delete':
      return op.key === key;
    case 'deletePrefix':
      return key.startsWith(op.prefix);
    case 'get':
      return false;
  }
}

export function absent(key: string): Guard {
  return { key, modRevision: 0n };
}

export function unchanged(key: string, modRevision: Revision): Guard {
  return { key, modRevision };
}

/** Parts of at most `size`, for transactions that must stay under the store's limit of operations. */
export function chunks<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  const out: T[][] = [];
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size));
  return out;
}
