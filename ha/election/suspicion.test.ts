import { expect, test } from 'vitest';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { NO_SUSPICION, stepSuspicion, type SuspicionEvent } from './suspicion.ts';

const LIMITS = { stealsMax: 3, windowMs: 60_000, offMs: 60_000 };
const token = (n: number) => asFencingToken(BigInt(n));
const leader = (n: number | undefined, stolen = false): SuspicionEvent => ({
  kind: 'leader',
  token: n === undefined ? undefined : token(n),
  stolen,
});
type Answer = Extract<SuspicionEvent, { kind: 'answered' }>['answer'];

/** Plays events; an answer or a loss is of the newest attempt. Gives the actions as words. */
function story(...events: (SuspicionEvent | Answer | 'lost' | { readonly atMs: number })[]) {
  let state = NO_SUSPICION;
  let nowMs = 0;
  const actions: string[] = [];
  for (const one of events) {
    if (typeof one === 'object' && 'atMs' in one) {
      nowMs = one.atMs;
      continue;
    }
    const attempt = state.phase.kind === 'idle' ? 0 : state.phase.attempt;
    const event: SuspicionEvent =
      typeof one === 'object'
        ? one
        : one === 'lost'
          ? { kind: 'lost', attempt }
          : { kind: 'answered', attempt, answer: one };
    const step = stepSuspicion(state, event, nowMs, LIMITS);
    state = step.state;
    for (const action of step.actions)
      actions.push(
        action.kind === 'connect'
          ? `connect +${action.afterMs}`
          : action.kind === 'steal'
            ? `steal ${action.token}`
            : action.kind,
      );
  }
  return { actions, phase: state.phase.kind, state };
}

test('a leader that was met, whose connection broke and where two fresh connects are refused, is stolen from', () => {
  const { actions, phase } = story(leader(7), 'same', 'lost', 'refused', 'refused');
  expect(actions).toEqual(['connect +0', 'connect +0', 'connect +1', 'steal 7']);
  expect(phase).toBe('convinced');
});

test('a stranger on the port of the leader counts as its absence', () => {
  expect(story(leader(7), 'same', 'lost', 'refused', 'stranger').actions).toContain('steal 7');
  expect(story(leader(7), 'same', 'lost', 'stranger', 'stranger').actions).toContain('steal 7');
});

test('one refusal is not enough, nor are two that do not follow one another', () => {
  expect(story(leader(7), 'same', 'lost', 'refused').phase).toBe('doubting');
  const { actions, phase } = story(leader(7), 'same', 'lost', 'refused', 'unclear', 'refused');
  expect(actions).not.toContain('steal 7');
  expect(phase).toBe('doubting');
});

test('silence, unreachable hosts and broken connections never become a proof, however many', () => {
  const unclear = Array.from({ length: 200 }, (): Answer => 'unclear');
  const { actions, phase } = story(leader(7), 'same', 'lost', ...unclear);
  expect(phase).toBe('doubting');
  expect(actions).not.toContain('steal 7');
  // Ever slower, and never given up: the host may come back without the process.
  expect(actions.slice(-1)).toEqual(['connect +500']);
});

test('refusals while the connection stands mean nothing, and neither do those of a leader that was never met', () => {
  expect(story(leader(7), 'same', 'refused', 'refused', 'refused').phase).toBe('holding');
  const { actions, phase } = story(leader(7), 'refused', 'refused', 'refused', 'stranger', 'stranger');
  expect(phase).toBe('meeting');
  expect(actions).not.toContain('steal 7');
});

test('a leader that answers again is held again, and a later loss is judged anew', () => {
  const { phase } = story(leader(7), 'same', 'lost', 'refused', 'same', 'lost', 'refused');
  expect(phase).toBe('doubting');
});

test('news of another leader ends the suspicion of the one before: answers that come later count for nothing', () => {
  let { state } = story(leader(7), 'same', 'lost', 'refused');
  const attempt = state.phase.kind === 'idle' ? 0 : state.phase.attempt;
  ({ state } = stepSuspicion(state, leader(9), 0, LIMITS));
  const late = stepSuspicion(state, { kind: 'answered', attempt, answer: 'refused' }, 0, LIMITS);
  expect(late).toEqual({ state, actions: [] });
  expect(late.state.phase).toMatchObject({ kind: 'meeting', token: 9n });
  expect(stepSuspicion(state, leader(undefined), 0, LIMITS).state.phase.kind).toBe('idle');
});

test('the same leader named twice changes nothing', () => {
  const { state } = story(leader(7), 'same');
  expect(stepSuspicion(state, leader(7), 0, LIMITS)).toEqual({ state, actions: [] });
});

test('after a steal that did not take the leader is looked at again before another', () => {
  const failed: SuspicionEvent = { kind: 'failed', token: token(7) };
  const { actions } = story(leader(7), 'same', 'lost', 'refused', 'refused', failed, 'refused', 'refused');
  expect(actions.filter((one) => one === 'steal 7')).toHaveLength(2);
  expect(story(leader(7), 'same', 'lost', 'refused', 'refused', failed, 'same').phase).toBe('holding');
});

test('more steals a minute than allowed, by whomever, switch suspicion off for a while, and people are told', () => {
  const flapping = [1, 2, 3, 4].map((n) => leader(n, true));
  const off = story(...flapping, 'same', 'lost', 'refused', 'refused', 'refused', 'refused');
  expect(off.actions).toContain('switched-off');
  expect(off.actions.filter((one) => one.startsWith('steal'))).toEqual([]);
  const on = story(...flapping, 'same', { atMs: 60_000 }, { kind: 'tick' }, 'lost', 'refused', 'refused');
  expect(on.actions).toContain('switched-on');
  expect(on.actions).toContain('steal 4');
});

test('what was seen while suspicion was off is no proof when it is on again', () => {
  const flapping = [1, 2, 3, 4].map((n) => leader(n, true));
  const seen = story(...flapping, 'same', 'lost', 'refused', 'refused', { atMs: 60_000 }, { kind: 'tick' }, 'refused');
  expect(seen.actions.filter((one) => one.startsWith('steal'))).toEqual([]);
});

test('steals spread over more than a minute are borne, ordinary elections do not count at all', () => {
  const slow = [1, 2, 3, 4, 5, 6].flatMap((n) => [{ atMs: n * 20_001 }, leader(n, true)]);
  expect(story(...slow).actions).not.toContain('switched-off');
  expect(story(...[1, 2, 3, 4, 5, 6].map((n) => leader(n))).actions).not.toContain('switched-off');
});
