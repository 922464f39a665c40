import { describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { absent, brief, coordinationContract, ordered, put, values, watching } from './coordination.contract.ts';
import { EtcdModel } from './etcd-model.ts';

describe('the contract', () => {
  coordinationContract(async () => {
    const model = new EtcdModel({ clock: new SystemClock(), minTtlMs: 200 });
    return {
      client: async () => model.client(),
      compact: async () => model.compact(),
      minTtlMs: 600,
      expiryLagMs: 0,
      close: async () => undefined,
    };
  });
});

function manual(options: { readonly minTtlMs?: number; readonly historyMax?: number } = {}) {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock, ...options });
  return { clock, model, a: model.client({ name: 'a' }), b: model.client({ name: 'b' }) };
}

test('a lease shorter than the minimum is granted as the minimum and expires at its end, to the millisecond', async () => {
  const { clock, a, b } = manual({ minTtlMs: 2_000 });
  const lease = await a.grantLease(500);
  expect(lease.grantedTtlMs).toBe(2_000);
  const { revision } = await a.txn({ guards: [], then: [put('k', 'v', lease.id)] });
  const seen = watching(b, 'k', revision);
  await clock.advance(1_999);
  expect(seen).toEqual([]);
  await clock.advance(1);
  expect(seen).toEqual([{ kind: 'delete', key: 'k', revision: revision + 1n }]);
  await b.close();
  expect(clock.pending).toBe(0);
});

test('leases that expire together go in order of their deadlines, each in its own revision', async () => {
  const { clock, model, a } = manual();
  const late = await a.grantLease(200);
  const early = await a.grantLease(100);
  const { revision } = await a.txn({ guards: [], then: [put('late', 'v', late.id), put('early', 'v', early.id)] });
  await clock.advance(1_000);
  const seen = watching(a, '', revision);
  await clock.advance(0);
  expect(seen.map(brief)).toEqual(['delete early', 'delete late']);
  expect(model.revision).toBe(revision + 2n);
  expect(model.leases).toEqual([]);
});

test('C5: a transaction that fails before it arrives is UNAVAILABLE and did not happen', async () => {
  const { model, a, b } = manual();
  model.intercept = (call) => (call.kind === 'txn' ? { kind: 'failBefore' } : undefined);
  await expect(a.txn({ guards: [], then: [put('k', 'v')] })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(await b.get('k')).toBeUndefined();
});

test('C5: a transaction whose answer is lost is UNKNOWN_OUTCOME and did happen, once', async () => {
  const { clock, model, a, b } = manual();
  model.intercept = (call) => (call.kind === 'txn' && call.client === 'a' ? { kind: 'failAfter' } : undefined);
  const { revision } = await b.list('');
  const lost = a.txn({ guards: [absent('k')], then: [put('k', 'mine')] });
  lost.catch(() => undefined);
  await clock.advance(0);
  await expect(lost).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' });
  expect(await b.get('k')).toMatchObject({ value: 'mine', modRevision: revision + 1n });
});

test('C6: a call that nobody answers ends at the deadline; the transaction is in doubt, the read is not', async () => {
  const { clock, model, a } = manual();
  model.intercept = () => ({ kind: 'hang' });
  const ends: string[] = [];
  const note = (name: string) => (error: { code: string }) => ends.push(`${name} ${error.code} ${clock.nowMs()}`);
  const calls = [a.txn({ guards: [], then: [] }).catch(note('txn')), a.get('k').catch(note('get'))];
  await clock.advance(999);
  expect(ends).toEqual([]);
  await clock.advance(1);
  await Promise.all(calls);
  expect(ends).toEqual(['txn UNKNOWN_OUTCOME 1000', 'get UNAVAILABLE 1000']);
});

test('a request that is on its way takes effect although its caller has given up', async () => {
  const { clock, model, a, b } = manual();
  model.intercept = (call) => (call.client === 'a' ? { kind: 'delay', requestMs: 1_500, answerMs: 10 } : undefined);
  const slow = a.txn({ guards: [], then: [put('k', 'late')] });
  slow.catch(() => undefined);
  await clock.advance(1_000);
  await expect(slow).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' });
  expect(await b.get('k')).toBeUndefined();
  await clock.advance(500);
  expect((await b.get('k'))?.value).toBe('late');
  await clock.advance(10);
  expect(clock.pending).toBe(0);
});

test('C4: a watch whose stream breaks says so and misses nothing', async () => {
  const { clock, a, b } = manual();
  const { revision } = await a.list('');
  const seen = watching(b, 'w', revision);
  await a.txn({ guards: [], then: [put('w', '1')] });
  await clock.advance(0);
  b.breakWatches('member died');
  await a.txn({ guards: [], then: [put('w', '2')] });
  await a.txn({ guards: [], then: [put('w', '3')] });
  await clock.advance(50);
  expect(seen.map(brief)).toEqual(['put w', 'disconnected']);
  await clock.advance(50);
  expect(values(seen)).toEqual(['1', '2', '3']);
  expect(ordered(seen)).toBe(true);
});

test('C4: a watch that was away longer than the history is reset', async () => {
  const { clock, a, b } = manual({ historyMax: 3 });
  const { revision } = await a.list('');
  const seen = watching(b, 'w', revision);
  await clock.advance(0);
  b.breakWatches('cut off');
  for (let i = 0; i < 10; i++) await a.txn({ guards: [], then: [put('w', String(i))] });
  await clock.advance(100);
  expect(seen.map(brief)).toEqual(['disconnected', 'reset']);
  expect(seen[1]).toMatchObject({ listing: { entries: [{ key: 'w', value: '9' }] } });
});

test('changes on their way to a watch can be held up, and arrive whole', async () => {
  const { clock, model, a, b } = manual();
  const { revision } = await a.list('');
  const seen = watching(b, 'w', revision);
  await clock.advance(0);
  model.intercept = (call) =>
    call.kind === 'watchEvents' ? { kind: 'delay', requestMs: 300, answerMs: 0 } : undefined;
  await a.txn({ guards: [], then: [put('w', '1')] });
  await clock.advance(100);
  await a.txn({ guards: [], then: [put('w', '2')] });
  await clock.advance(199);
  expect(seen).toEqual([]);
  await clock.advance(1);
  expect(values(seen)).toEqual(['1', '2']);
});

test('the same calls in the same order give the same store, to the last revision and lease id', async () => {
  const run = async () => {
    const { clock, model, a, b } = manual({ minTtlMs: 100 });
    const seen = watching(b, '', 0n);
    for (let i = 0; i < 20; i++) {
      const lease = await a.grantLease(100 + i);
      await Promise.all([
        a.txn({ guards: [], then: [put(`a${i}`, 'v', lease.id)] }),
        b.txn({ guards: [absent('b')], then: [put('b', String(i))], otherwise: [{ kind: 'delete', key: 'b' }] }),
      ]);
      await clock.advance(30);
    }
    await b.close();
    return JSON.stringify([seen, model.list(''), model.leases], (_, value) =>
      typeof value === 'bigint' ? `${value}n` : value,
    );
  };
  expect(await run()).toBe(await run());
});

test('a lease lives on for the lag, and keeps its life while etcd has no leader', async () => {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock, expiryLagMs: 500 });
  const client = model.client({});
  const lease = await client.grantLease(1_000);
  await clock.advance(1_499);
  expect(model.leases.map(({ id }) => id)).toEqual([lease.id]);
  model.loseLeader();
  await clock.advance(5_000);
  expect(model.leases.map(({ id }) => id)).toEqual([lease.id]);
  model.electLeader();
  await clock.advance(1_499);
  expect(model.leases.map(({ id }) => id)).toEqual([lease.id]);
  await clock.advance(1);
  expect(model.leases).toEqual([]);
});
