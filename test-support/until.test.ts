import { expect, test } from 'vitest';
import { until } from './until.ts';

test('returns the first truthy value', async () => {
  let calls = 0;
  expect(await until('three', () => (++calls === 3 ? { calls } : undefined), { everyMs: 1 })).toEqual({ calls: 3 });
});

test('says what it waited for and what it saw last', async () => {
  const waiting = until('a leader', () => false as boolean, { timeoutMs: 30, everyMs: 5 });
  await expect(waiting).rejects.toThrow('waited 30 ms for a leader; last value: false');
});

test('a probe that throws is asked again, and its last error is the cause', async () => {
  const refused = new Error('connection refused');
  let calls = 0;
  const probe = () => {
    calls++;
    throw refused;
  };
  const failure = await until('a server', probe, { timeoutMs: 40, everyMs: 5 }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ cause: refused, message: expect.stringContaining('last error: connection refused') });
  expect(calls).toBeGreaterThan(1);
});

test('a probe that hangs does not outlive the deadline', async () => {
  await expect(until('an answer', () => new Promise<never>(() => {}), { timeoutMs: 20 })).rejects.toThrow(
    'waited 20 ms for an answer; the probe never answered',
  );
});
