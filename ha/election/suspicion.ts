import { unreachable } from '../../src/kernel/assert.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';

/**
 * A standby's suspicion of one leader, as a pure step function. Times are of the monotonic clock.
 *
 * Invariants:
 *   S1. A leader is taken for dead only when a connection to it that had shown its nonce has broken, and
 *       two fresh connects in a row found nobody or a stranger. Silence, a host that cannot be reached
 *       and a pause never count, and begin the count anew: there the lease decides.
 *   S2. A steal is of one token. News of another leader ends every suspicion of the one before.
 *   S3. More than `stealsMax` steals within `windowMs`, by whomever, are no string of deaths but a sign
 *       that suspicion itself is wrong here: for `offMs` nobody is suspected, and people are told.
 *
 * A wrong suspicion costs a failover, never the truth: the store fences the old leader (rule 2).
 */
export interface SuspicionState {
  readonly phase: SuspicionPhase;
  /** When steals were seen, oldest first, within the window. */
  readonly stealsMs: readonly number[];
  /** Nobody is suspected until then. */
  readonly offUntilMs: number;
}

export type SuspicionPhase =
  /** Nobody leads, or this replica does. */
  | { readonly kind: 'idle' }
  /** Not seen yet: whatever the answers are, they say nothing of a process that we never met. */
  | { readonly kind: 'meeting'; readonly token: FencingToken; readonly attempt: number; readonly unclear: number }
  /** Its nonce was seen, and the connection stands. */
  | { readonly kind: 'holding'; readonly token: FencingToken; readonly attempt: number }
  /** The connection broke; fresh connects have found it gone `proofs` times in a row. */
  | {
      readonly kind: 'doubting';
      readonly token: FencingToken;
      readonly attempt: number;
      readonly proofs: number;
      readonly unclear: number;
    }
  | { readonly kind: 'convinced'; readonly token: FencingToken; readonly attempt: number };

export type SuspicionEvent =
  /** The store names a leader other than this replica, or none. `stolen`: it took the key from another. */
  | { readonly kind: 'leader'; readonly token: FencingToken | undefined; readonly stolen: boolean }
  | {
      readonly kind: 'answered';
      readonly attempt: number;
      readonly answer: 'same' | 'refused' | 'stranger' | 'unclear';
    }
  /** The connection of that attempt broke, after it had been `same`. */
  | { readonly kind: 'lost'; readonly attempt: number }
  /** The steal did not take, and the same leader is still named. */
  | { readonly kind: 'failed'; readonly token: FencingToken }
  | { readonly kind: 'tick' };

export type SuspicionAction =
  | { readonly kind: 'connect'; readonly attempt: number; readonly afterMs: number }
  /** Close what is open to a former leader. */
  | { readonly kind: 'let-go' }
  | { readonly kind: 'steal'; readonly token: FencingToken }
  | { readonly kind: 'switched-off'; readonly steals: number; readonly untilMs: number }
  | { readonly kind: 'switched-on' };

export interface SuspicionLimits {
  readonly stealsMax: number;
  readonly windowMs: number;
  readonly offMs: number;
}

export interface SuspicionStep {
  readonly state: SuspicionState;
  readonly actions: readonly SuspicionAction[];
}

/** S1. */
const PROOFS = 2;
/** Between the two connects: enough for a listener that is being replaced, too short to be felt. */
const AGAIN_MS = 1;
const UNCLEAR_FIRST_MS = 2;
const UNCLEAR_MAX_MS = 500;
/** Between two tries to meet a leader that cannot be met. */
const MEET_AGAIN_MS = 250;

export const NO_SUSPICION: SuspicionState = {
  phase: { kind: 'idle' },
  stealsMs: [],
  offUntilMs: Number.NEGATIVE_INFINITY,
};

export function stepSuspicion(
  state: SuspicionState,
  event: SuspicionEvent,
  nowMs: number,
  limits: SuspicionLimits,
): SuspicionStep {
  const { phase } = state;
  switch (event.kind) {
    case 'leader':
      return named(state, event, nowMs, limits);
    case 'answered':
      if (phase.kind === 'idle' || phase.attempt !== event.attempt) return { state, actions: [] };
      return answered(state, phase, event.answer, nowMs);
    case 'lost':
      if (phase.kind !== 'holding' || phase.attempt !== event.attempt) return { state, actions: [] };
      return connect(state, { ...phase, kind: 'doubting', proofs: 0, unclear: 0 }, 0);
    case 'failed':
      // Looked at once more before another try: the evidence is as old as the try was slow.
      if (phase.kind !== 'convinced' || phase.token !== event.token) return { state, actions: [] };
      return connect(state, { ...phase, kind: 'doubting', proofs: 0, unclear: 0 }, UNCLEAR_FIRST_MS);
    case 'tick':
      if (nowMs < state.offUntilMs || state.offUntilMs === Number.NEGATIVE_INFINITY) return { state, actions: [] };
      return { state: { ...state, offUntilMs: Number.NEGATIVE_INFINITY }, actions: [{ kind: 'switched-on' }] };
    default:
      return unreachable(event);
  }
}

type Watching = Exclude<SuspicionPhase, { kind: 'idle' }>;

function named(
  state: SuspicionState,
  { token, stolen }: Extract<SuspicionEvent, { kind: 'leader' }>,
  nowMs: number,
  limits: SuspicionLimits,
): SuspicionStep {
  const { phase } = state;
  const present = phase.kind === 'idle' ? undefined : phase.token;
  if (token === present) return { state, actions: [] };
  const counted = stolen ? countSteal(state, nowMs, limits) : { state, actions: [] };
  const letGo: SuspicionAction[] = present === undefined ? [] : [{ kind: 'let-go' }];
  if (token === undefined)
    return { state: { ...counted.state, phase: { kind: 'idle' } }, actions: [...counted.actions, ...letGo] };
  const attempt = phase.kind === 'idle' ? 0 : phase.attempt;
  const met = connect(counted.state, { kind: 'meeting', token, attempt, unclear: 0 }, 0);
  return { state: met.state, actions: [...counted.actions, ...letGo, ...met.actions] };
}

/** S3. */
function countSteal(state: SuspicionState, nowMs: number, limits: SuspicionLimits): SuspicionStep {
  const stealsMs = [...state.stealsMs.filter((atMs) => nowMs - atMs < limits.windowMs), nowMs];
  if (stealsMs.length <= limits.stealsMax) return { state: { ...state, stealsMs }, actions: [] };
  const untilMs = nowMs + limits.offMs;
  return {
    state: { ...state, stealsMs: [], offUntilMs: untilMs },
    actions: [{ kind: 'switched-off', steals: stealsMs.length, untilMs }],
  };
}

function answered(
  state: SuspicionState,
  phase: Watching,
  answer: Extract<SuspicionEvent, { kind: 'answered' }>['answer'],
  nowMs: number,
): SuspicionStep {
  if (phase.kind === 'holding' || phase.kind === 'convinced') return { state, actions: [] };
  if (answer === 'same')
    return { state: { ...state, phase: { kind: 'holding', token: phase.token, attempt: phase.attempt } }, actions: [] };
  if (phase.kind === 'meeting' || nowMs < state.offUntilMs) {
    const waitMs = answer === 'unclear' ? pauseMs(phase.unclear) : MEET_AGAIN_MS;
    const unclear = answer === 'unclear' ? phase.unclear + 1 : 0;
    // S3: while off no proof is kept either, or the first moment after it would act on old news.
    const next = phase.kind === 'meeting' ? { ...phase, unclear } : { ...phase, proofs: 0, unclear };
    return connect(state, next, waitMs);
  }
  if (answer === 'unclear')
    return connect(state, { ...phase, proofs: 0, unclear: phase.unclear + 1 }, pauseMs(phase.unclear)); // S1
  const proofs = phase.proofs + 1;
  if (proofs < PROOFS) return connect(state, { ...phase, proofs, unclear: 0 }, AGAIN_MS);
  return {
    state: { ...state, phase: { kind: 'convinced', token: phase.token, attempt: phase.attempt } },
    actions: [{ kind: 'steal', token: phase.token }],
  };
}

function connect(state: SuspicionState, phase: Watching, afterMs: number): SuspicionStep {
  const attempt = phase.attempt + 1;
  return { state: { ...state, phase: { ...phase, attempt } }, actions: [{ kind: 'connect', attempt, afterMs }] };
}

function pauseMs(unclear: number): number {
  return Math.min(UNCLEAR_MAX_MS, UNCLEAR_FIRST_MS * 2 ** Math.min(unclear, 10));
}
