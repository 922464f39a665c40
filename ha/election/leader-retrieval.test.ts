import { expect, test } from 'vitest';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { testKeys } from './election.fixture.ts';
import { WatchedLeaderRetrieval } from './leader-retrieval.ts';

test('while the store is away the retrieval says that it may be out of date, and no longer when it is back', async () => {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const retrieval = WatchedLeaderRetrieval.start({
    coordination: model.client({ name: 'worker' }),
    keys: testKeys,
    clock,
    log: silentLogger,
  });
  expect(retrieval.connected()).toBe(false); // Nothing was heard yet.
  await clock.advance(100);
  expect(retrieval.connected()).toBe(true);
  model.intercept = () => ({ kind: 'hang' });
  await clock.advance(10_000);
  expect(retrieval.connected()).toBe(false);
  model.intercept = undefined;
  await clock.advance(10_000);
  expect(retrieval.connected()).toBe(true);
  await retrieval.close();
});
