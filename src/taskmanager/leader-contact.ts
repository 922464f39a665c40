import { unreachable } from '../kernel/assert.ts';
import type { FencingToken } from '../kernel/ids.ts';

/**
 * A worker's view of its leader, as a pure step function.
 *
 * Invariants:
 *   W1. The highest token seen only grows; commands below it are refused; the worker never turns back to
 *       an older leader.
 *   W2. Tasks are ended for silence only when the store says that a leader exists and that leader could
 *       not be reached for a whole time-out. When nobody leads, or the store is away, tasks run on.
 *   W3. Before tasks are ended the leader has been called: silence may be the leader's fault only.
 */
export interface LeaderContact {
  readonly highestToken: FencingToken;
  /** The leader that the store names, if any. */
  readonly leader: FencingToken | undefined;
  /** That leader has taken our registration, and has not been silent since. */
  readonly registered: boolean;
  /** Since when the leader has been silent: the last word from it, or when we learned of it. */
  readonly silentSinceMs: number;
  /** The last call *of* that leader. It may answer and yet have given us up, or not reach us. */
  readonly calledMs: number;
  /** Tasks were ended for the present silence. */
  readonly cutOff: boolean;
  readonly lastTickMs: number;
}

export type ContactEvent =
  /** The store names a leader, or none. */
  | { readonly kind: 'leader'; readonly token: FencingToken | undefined }
  /** A call carries this token. */
  | { readonly kind: 'called'; readonly token: FencingToken }
  /** That leader answered a call of ours, whatever it said. */
  | { readonly kind: 'answered'; readonly token: FencingToken }
  | { readonly kind: 'registered'; readonly token: FencingToken }
  /** `storeConnected`: whether the store can be trusted to know who leads. */
  | { readonly kind: 'tick'; readonly storeConnected: boolean; readonly timeoutMs: number; readonly tickMs: number };

export type ContactAction =
  | 'none'
  /** The token is below the highest: refuse the call. */
  | 'refuse'
  /** Drop what connects us to an older leader, and register with this one. */
  | 'follow'
  /** The leader that we follow has been followed by another that the store has not named yet. */
  | 'let-go'
  | 'register-again'
  | 'end-tasks';

export interface ContactStep {
  readonly contact: LeaderContact;
  readonly action: ContactAction;
}

/** Part of the time-out after which silence is answered by calling the leader (W3). */
const ASK_AFTER = 0.6;

export function noContact(nowMs: number): LeaderContact {
  return {
    highestToken: 0n as FencingToken,
    leader: undefined,
    registered: false,
    silentSinceMs: nowMs,
    calledMs: nowMs,
    cutOff: false,
    lastTickMs: nowMs,
  };
}

export function stepLeaderContact(contact: LeaderContact, event: ContactEvent, nowMs: number): ContactStep {
  const same: ContactStep = { contact, action: 'none' };
  switch (event.kind) {
    case 'leader': {
      const { token } = event;
      if (token === undefined) return { contact: { ...contact, leader: undefined }, action: 'none' };
      if (token < contact.highestToken) return same; // W1: the store's news is older than what we were told.
      if (token === contact.leader) return same;
      const returned = token === contact.highestToken && contact.registered;
      return {
        contact: {
          ...contact,
          highestToken: token,
          leader: token,
          registered: returned,
          silentSinceMs: nowMs,
          calledMs: nowMs,
          cutOff: false,
        },
        action: returned ? 'none' : 'follow',
      };
    }
    case 'called':
      if (event.token < contact.highestToken) return { contact, action: 'refuse' };
      if (event.token > contact.highestToken)
        return {
          contact: { ...heard(contact, nowMs), highestToken: event.token, leader: undefined, registered: false },
          action: 'let-go',
        };
      return { contact: { ...heard(contact, nowMs), calledMs: nowMs }, action: 'none' };
    case 'answered':
      return event.token === contact.highestToken ? { contact: heard(contact, nowMs), action: 'none' } : same;
    case 'registered':
      if (event.token !== contact.highestToken) return same;
      return { contact: { ...heard(contact, nowMs), registered: true, calledMs: nowMs }, action: 'none' };
    case 'tick':
      return tick(contact, event, nowMs);
    default:
      return unreachable(event);
  }
}

function tick(contact: LeaderContact, event: Extract<ContactEvent, { kind: 'tick' }>, nowMs: number): ContactStep {
  const ticked = { ...contact, lastTickMs: nowMs };
  const { storeConnected, timeoutMs, tickMs } = event;
  // This process itself was away (stopped, swapped out): what looks like the leader's silence is our own.
  const wasAway = nowMs - contact.lastTickMs > tickMs + timeoutMs / 2;
  if (contact.leader === undefined || !storeConnected || wasAway)
    return { contact: { ...ticked, silentSinceMs: nowMs, calledMs: nowMs }, action: 'none' }; // W2
  const silentMs = nowMs - contact.silentSinceMs;
  if (silentMs >= timeoutMs && !contact.cutOff)
    return { contact: { ...ticked, cutOff: true, registered: false }, action: 'end-tasks' };
  const forgotten = nowMs - contact.calledMs >= timeoutMs;
  if ((silentMs >= timeoutMs * ASK_AFTER || forgotten) && contact.registered)
    return { contact: { ...ticked, registered: false }, action: 'register-again' };
  return { contact: ticked, action: 'none' };
}

function heard(contact: LeaderContact, nowMs: number): LeaderContact {
  return { ...contact, silentSinceMs: nowMs, cutOff: false };
}
