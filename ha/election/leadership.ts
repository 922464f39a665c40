import { assert, unreachable } from '../../src/kernel/assert.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';

/**
 * One replica's part in the election, as a pure step function. Times are of the monotonic clock.
 *
 * Invariants:
 *   L1. Tokens only grow: a token is the revision of the transaction that won, and is granted once.
 *   L2. We stop leading before the store may elect another. The deadline counts from when the last
 *       answered keepalive was *sent*. Stopping early costs a pause; stopping late costs two leaders.
 *   L3. Doubt is not loss: past the deadline a leader is suspended and forgets nothing. It resumes
 *       under the same token, once an answer shows that the lease lives and the key is still its own.
 *   L4. Loss is final: a token that was revoked never leads again.
 */
export type LeadershipState =
  | { readonly kind: 'waiting'; readonly lastToken: FencingToken }
  | { readonly kind: 'leading'; readonly token: FencingToken; readonly deadlineMs: number }
  | { readonly kind: 'suspended'; readonly token: FencingToken };

export type LeadershipEvent =
  /** The campaign was won and the deadline has not passed meanwhile. */
  | { readonly kind: 'elected'; readonly token: FencingToken; readonly deadlineMs: number; readonly nowMs: number }
  /** A keepalive was answered: the lease lives. */
  | { readonly kind: 'renewed'; readonly token: FencingToken; readonly deadlineMs: number; readonly nowMs: number }
  /** A keepalive was answered, and after it the key was seen to be ours. */
  | { readonly kind: 'confirmed'; readonly token: FencingToken; readonly deadlineMs: number; readonly nowMs: number }
  | { readonly kind: 'tick'; readonly nowMs: number }
  /** The key is gone or another's, the lease has expired, or the replica gives up. */
  | { readonly kind: 'lost'; readonly token: FencingToken };

/** What the contender must be told. */
export type Announcement = 'granted' | 'suspended' | 'resumed' | 'revoked';

export function stepLeadership(state: LeadershipState, event: LeadershipEvent): LeadershipState {
  switch (event.kind) {
    case 'elected':
      assert(state.kind === 'waiting', 'L1: elected while leading');
      assert(event.token > state.lastToken, 'L1: token went backwards');
      assert(event.nowMs < event.deadlineMs, 'L2: elected after the deadline');
      return { kind: 'leading', token: event.token, deadlineMs: event.deadlineMs };
    case 'renewed':
      // L3: while suspended, a living lease alone does not say whose the key is.
      if (state.kind !== 'leading' || state.token !== event.token) return state;
      return leadingUntil(state.token, Math.max(state.deadlineMs, event.deadlineMs), event.nowMs);
    case 'confirmed':
      if (state.kind === 'waiting' || state.token !== event.token) return state; // L4: an answer that came too late
      return leadingUntil(
        state.token,
        state.kind === 'leading' ? Math.max(state.deadlineMs, event.deadlineMs) : event.deadlineMs,
        event.nowMs,
      );
    case 'tick':
      return state.kind === 'leading' ? leadingUntil(state.token, state.deadlineMs, event.nowMs) : state;
    case 'lost':
      if (state.kind === 'waiting' || state.token !== event.token) return state;
      return { kind: 'waiting', lastToken: state.token };
    default:
      return unreachable(event);
  }
}

/** L2, in one place: whoever is past the deadline does not lead, however late the news or the timer came. */
function leadingUntil(token: FencingToken, deadlineMs: number, nowMs: number): LeadershipState {
  return nowMs < deadlineMs ? { kind: 'leading', token, deadlineMs } : { kind: 'suspended', token };
}

export function announcement(before: LeadershipState, after: LeadershipState): Announcement | undefined {
  if (before.kind === after.kind) return undefined;
  switch (after.kind) {
    case 'leading':
      return before.kind === 'waiting' ? 'granted' : 'resumed';
    case 'suspended':
      return 'suspended';
    case 'waiting':
      return 'revoked';
    default:
      return unreachable(after);
  }
}
