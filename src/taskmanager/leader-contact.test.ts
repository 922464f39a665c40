import { expect, test } from 'vitest';
import { asFencingToken } from '../kernel/ids.ts';
import { type ContactEvent, type LeaderContact, noContact, stepLeaderContact } from './leader-contact.ts';

const token = (n: number) => asFencingToken(BigInt(n));
const leader = (n: number | undefined): ContactEvent => ({
  kind: 'leader',
  token: n === undefined ? undefined : token(n),
});
const called = (n: number): ContactEvent => ({ kind: 'called', token: token(n) });
const registered = (n: number): ContactEvent => ({ kind: 'registered', token: token(n) });
const answered = (n: number): ContactEvent => ({ kind: 'answered', token: token(n) });
const tick = (storeConnected = true): ContactEvent => ({ kind: 'tick', storeConnected, timeoutMs: 5_000, tickMs: 250 });

/** Events with their times; ticks pass in between as they would. */
function story(events: readonly (readonly [number, ContactEvent])[], untilMs: number, storeConnected = true) {
  let contact: LeaderContact = noContact(0);
  const actions: string[] = [];
  const pending = [...events];
  for (let nowMs = 0; nowMs <= untilMs; nowMs += 250) {
    while (pending[0] !== undefined && pending[0][0] <= nowMs) {
      const [, event] = pending.shift() as readonly [number, ContactEvent];
      const step = stepLeaderContact(contact, event, nowMs);
      contact = step.contact;
      if (step.action !== 'none') actions.push(`${nowMs} ${step.action}`);
    }
    const step = stepLeaderContact(contact, tick(storeConnected), nowMs);
    contact = step.contact;
    if (step.action !== 'none') actions.push(`${nowMs} ${step.action}`);
  }
  return { contact, actions };
}

test('a new leader is followed, an older one is not, and the same one is followed once', () => {
  const { actions, contact } = story(
    [
      [0, leader(5)],
      [250, leader(4)],
      [500, leader(5)],
      [750, leader(7)],
    ],
    1_000,
  );
  expect(actions).toEqual(['0 follow', '750 follow']);
  expect(contact.highestToken).toBe(7n);
});

test('calls below the highest token are refused, whoever the store says leads', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [250, called(4)],
      [250, called(6)],
      [500, called(5)],
      [500, leader(5)],
    ],
    500,
  );
  expect(actions).toEqual(['0 follow', '250 refuse', '250 let-go', '500 refuse']);
});

test('a leader that called before the store named it is followed when it is named', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [250, called(6)],
      [500, leader(6)],
    ],
    500,
  );
  expect(actions).toEqual(['0 follow', '250 let-go', '500 follow']);
});

test('a registered leader that falls silent is called, and when that fails too the tasks are ended, once', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
      [1_000, called(5)],
    ],
    20_000,
  );
  expect(actions).toEqual(['0 follow', '4000 register-again', '6000 end-tasks']);
});

test('any answer of the leader ends its silence', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
      [4_000, answered(5)],
      [4_500, registered(5)],
      [7_000, called(5)],
    ],
    9_500,
  );
  expect(actions).toEqual(['0 follow', '3000 register-again']);
});

test('a leader that answers but does not call any more has given us up: the worker registers again', () => {
  const answers = Array.from({ length: 10 }, (_, i) => [i * 1_000, answered(5)] as const);
  const { actions } = story([[0, leader(5)], [0, registered(5)], ...answers], 9_000);
  expect(actions).toEqual(['0 follow', '5000 register-again']);
});

test('answers of a former leader end nobody’s silence', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
      [500, leader(6)],
      [3_000, answered(5)],
    ],
    6_000,
  );
  expect(actions).toEqual(['0 follow', '500 follow', '5500 end-tasks']);
});

test('a leader that never takes the registration is reached when it answers so', () => {
  const events = [0, 1, 2, 3, 4, 5, 6].map((s) => [s * 1_000, answered(5)] as const);
  expect(story([[0, leader(5)], ...events], 9_000).actions).toEqual(['0 follow']);
});

test('while nobody leads tasks run on, and a leader to come has its whole time', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
      [1_000, leader(undefined)],
      [60_000, leader(6)],
    ],
    64_500,
  );
  expect(actions).toEqual(['0 follow', '60000 follow']);
});

test('while the store is away tasks run on: it cannot say that a leader exists', () => {
  expect(
    story(
      [
        [0, leader(5)],
        [0, registered(5)],
      ],
      60_000,
      false,
    ).actions,
  ).toEqual(['0 follow']);
});

test('a worker that was frozen itself does not take its own absence for the leader’s', () => {
  let { contact } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
    ],
    1_000,
  );
  const woken = stepLeaderContact(contact, tick(), 61_000);
  expect(woken.action).toBe('none');
  contact = woken.contact;
  expect(stepLeaderContact(contact, tick(), 61_250).action).toBe('none');
});

test('a leader that the store names again after a moment without one is still the one we are registered with', () => {
  const { actions } = story(
    [
      [0, leader(5)],
      [0, registered(5)],
      [250, leader(undefined)],
      [500, leader(5)],
    ],
    1_000,
  );
  expect(actions).toEqual(['0 follow']);
});
