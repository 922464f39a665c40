import { expect, test } from 'vitest';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { addressOf } from './election.fixture.ts';
import { electionTimes } from './election-options.ts';
import { LoopLeaseKeeper } from './lease-keeper.ts';
import { OwnLease } from './own-lease.ts';

test('two who ask at once for a lease in place of one that runs out get the same, and no other is kept', async () => {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const coordination = model.client({});
  const deps = { coordination, clock, random: new SeededRandom(1), log: silentLogger };
  const times = electionTimes({ address: addressOf('a'), leaseTtlMs: 2_000, leaseMarginMs: 500 });
  const keeper = new LoopLeaseKeeper(deps, times);
  const lease = new OwnLease(deps, times, keeper);
  const first = lease.get();
  await clock.advance(0);
  const { id } = await first;
  // The store is away until the lease is not sure any more; it still answers when it is given back.
  model.intercept = () => ({ kind: 'hang' });
  await clock.advance(1_500);
  model.intercept = ({ kind }) => ({ kind: 'delay', requestMs: kind === 'revokeLease' ? 50 : 1, answerMs: 1 });

  const one = lease.get();
  await clock.advance(5);
  const other = lease.get();
  await clock.advance(300);
  expect((await one).id).toBe((await other).id);
  expect((await one).id).not.toBe(id);
  expect(model.leases.map((record) => record.id)).toEqual([(await one).id]);
  const closed = keeper.close();
  await clock.advance(2_000);
  await closed;
});
