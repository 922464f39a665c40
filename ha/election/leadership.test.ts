import { expect, test } from 'vitest';
import { asFencingToken } from '../../src/kernel/ids.ts';
import { announcement, type LeadershipState, stepLeadership } from './leadership.ts';

const token = (n: number) => asFencingToken(BigInt(n));
const waiting = (last: number): LeadershipState => ({ kind: 'waiting', lastToken: token(last) });
const leading = (n: number, deadlineMs: number): LeadershipState => ({ kind: 'leading', token: token(n), deadlineMs });
const suspended = (n: number): LeadershipState => ({ kind: 'suspended', token: token(n) });

test('a leader that misses its deadline is suspended and keeps its token', () => {
  expect(stepLeadership(leading(7, 100), { kind: 'tick', nowMs: 99.9 })).toEqual(leading(7, 100));
  expect(stepLeadership(leading(7, 100), { kind: 'tick', nowMs: 100 })).toEqual(suspended(7));
});

test('an answered keepalive moves the deadline on, and never back', () => {
  const renewed = { kind: 'renewed', token: token(7), nowMs: 50 } as const;
  expect(stepLeadership(leading(7, 100), { ...renewed, deadlineMs: 150 })).toEqual(leading(7, 150));
  expect(stepLeadership(leading(7, 100), { ...renewed, deadlineMs: 80 })).toEqual(leading(7, 100));
});

test('an answer that arrives after the deadline it could have moved suspends', () => {
  const late = { kind: 'renewed', token: token(7), deadlineMs: 150, nowMs: 150 } as const;
  expect(stepLeadership(leading(7, 100), late)).toEqual(suspended(7));
});

test('a living lease alone does not resume; seeing the key to be ours does', () => {
  const at = { token: token(7), deadlineMs: 300, nowMs: 200 };
  expect(stepLeadership(suspended(7), { kind: 'renewed', ...at })).toEqual(suspended(7));
  expect(stepLeadership(suspended(7), { kind: 'confirmed', ...at })).toEqual(leading(7, 300));
  expect(stepLeadership(suspended(7), { kind: 'confirmed', ...at, nowMs: 300 })).toEqual(suspended(7));
});

test('a lost token never leads again, whatever answers arrive late', () => {
  const lost = stepLeadership(leading(7, 100), { kind: 'lost', token: token(7) });
  expect(lost).toEqual(waiting(7));
  expect(stepLeadership(lost, { kind: 'confirmed', token: token(7), deadlineMs: 900, nowMs: 1 })).toEqual(lost);
  expect(stepLeadership(lost, { kind: 'renewed', token: token(7), deadlineMs: 900, nowMs: 1 })).toEqual(lost);
});

test('answers about another token change nothing', () => {
  const other = { token: token(6), deadlineMs: 900, nowMs: 1 };
  expect(stepLeadership(leading(7, 100), { kind: 'renewed', ...other })).toEqual(leading(7, 100));
  expect(stepLeadership(suspended(7), { kind: 'confirmed', ...other })).toEqual(suspended(7));
  expect(stepLeadership(leading(7, 100), { kind: 'lost', token: token(6) })).toEqual(leading(7, 100));
});

test('tokens only grow', () => {
  const elected = { kind: 'elected', deadlineMs: 100, nowMs: 1 } as const;
  expect(stepLeadership(waiting(7), { ...elected, token: token(8) })).toEqual(leading(8, 100));
  expect(() => stepLeadership(waiting(7), { ...elected, token: token(7) })).toThrow('L1');
  expect(() => stepLeadership(leading(7, 50), { ...elected, token: token(8) })).toThrow('L1');
  expect(() => stepLeadership(waiting(7), { ...elected, token: token(8), nowMs: 100 })).toThrow('L2');
});

test('each change of kind is announced as the contender expects', () => {
  expect(announcement(waiting(0), leading(1, 9))).toBe('granted');
  expect(announcement(leading(1, 9), leading(1, 12))).toBeUndefined();
  expect(announcement(leading(1, 9), suspended(1))).toBe('suspended');
  expect(announcement(suspended(1), leading(1, 9))).toBe('resumed');
  expect(announcement(suspended(1), waiting(1))).toBe('revoked');
  expect(announcement(leading(1, 9), waiting(1))).toBe('revoked');
});
