import { expect, test } from 'vitest';
import { asFencingToken } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { HandOverDesk } from './hand-over-desk.ts';

function desk(standbys: readonly string[], token: bigint | null = 7n) {
  const handed: string[] = [];
  const events: string[] = [];
  const one = new HandOverDesk({
    log: silentLogger,
    replicaId: 'a',
    directory: { list: () => ['a', ...standbys].map((replicaId) => ({ replicaId })) as never },
    events: { add: (kind, _id, _token, detail) => void events.push(`${kind} ${detail}`) },
  });
  one.opens({
    token: () => (token === null ? undefined : asFencingToken(token)),
    election: { handOver: async (by, to) => void handed.push(`${by} ${to ?? 'anybody'}`) },
  });
  return { one, handed, events };
}

test('a wish that names the leader, its token and one that stands by is carried out and recorded', async () => {
  const { one, handed, events } = desk(['b', 'c']);
  await one.over({ leader: 'a', token: '7', to: 'c' });
  await one.over({ leader: 'a', token: '7' });
  expect(handed).toEqual(['7 c', '7 anybody']);
  expect(events).toEqual(['hand-over to c', 'hand-over to whoever comes first']);
});

test.each([
  ['a token of another term', { leader: 'a', token: '6' }],
  ['another master’s name', { leader: 'b', token: '7' }],
  ['a successor that is not up', { leader: 'a', token: '7', to: 'z' }],
  ['the leader itself as successor', { leader: 'a', token: '7', to: 'a' }],
])('%s changes nothing', async (_what, wish) => {
  const { one, handed, events } = desk(['b']);
  await expect(one.over(wish)).rejects.toMatchObject({ code: 'CONFLICT' });
  expect([...handed, ...events]).toEqual([]);
});

test('the only master keeps leading: nobody could follow', async () => {
  const { one, handed } = desk([]);
  await expect(one.over({ leader: 'a', token: '7' })).rejects.toThrow('no other master is up');
  expect(handed).toEqual([]);
});

test('a master that does not lead says so', async () => {
  const { one } = desk(['b'], null);
  await expect(one.over({ leader: 'a', token: '7' })).rejects.toMatchObject({ code: 'NOT_LEADER' });
});
