import { expect, test } from 'vitest';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { addressOf, testKeys } from './election.fixture.ts';
import { ReplicaDirectory } from './replica-directory.ts';
import { ReplicaRegistration } from './replica-registration.ts';

function cluster() {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const deps = (name: string) => ({
    coordination: model.client({ name }),
    keys: testKeys,
    clock,
    random: new SeededRandom(1),
    log: silentLogger,
  });
  const register = (name: string, incarnation = `${name}-incarnation`) =>
    ReplicaRegistration.start(deps(name), { address: { ...addressOf(name), incarnation } });
  const directory = ReplicaDirectory.start(deps('directory'));
  return { clock, model, register, directory, ids: () => directory.list().map((one) => one.replicaId) };
}

test('replicas are listed with their addresses while they live, and vanish when they close or die', async () => {
  const { clock, model, register, directory, ids } = cluster();
  const a = register('a');
  const b = register('b');
  await clock.advance(100);
  expect(ids()).toEqual(['a', 'b']);
  expect(directory.list()[1]).toMatchObject({ restUrl: 'http://b:8081', rpcAddress: 'b:6123' });
  await clock.advance(60_000);
  expect(ids()).toEqual(['a', 'b']);
  await a.close();
  await clock.advance(10);
  expect(ids()).toEqual(['b']);
  model.intercept = (call) => (call.client === 'b' ? { kind: 'hang' } : undefined);
  await clock.advance(5_100);
  expect(ids()).toEqual([]);
  model.intercept = undefined;
  await clock.advance(4_000);
  expect(ids()).toEqual(['b']); // It was only cut off: it registers again.
  await b.close();
  await directory.close();
  expect(model.leases).toEqual([]);
});

test('a replica that was restarted before its old registration expired is listed once, as its new self', async () => {
  const { clock, model, register, directory } = cluster();
  const old = register('a', 'incarnation-1');
  await clock.advance(100);
  const restarted = register('a', 'incarnation-2');
  await clock.advance(100);
  expect(directory.list().map((one) => one.incarnation)).toEqual(['incarnation-2']);
  await old.close();
  await clock.advance(10);
  expect(directory.list().map((one) => one.incarnation)).toEqual(['incarnation-2']);
  await restarted.close();
  await directory.close();
  expect(model.leases).toEqual([]);
});

test('a registration survives an away store and lost answers without leaking leases', async () => {
  const { clock, model, register, directory, ids } = cluster();
  let call = 0;
  model.intercept = (one) => {
    if (one.client !== 'a') return undefined;
    call++;
    return call % 3 === 0 ? { kind: 'failAfter' } : call % 3 === 1 ? { kind: 'failBefore' } : undefined;
  };
  const a = register('a');
  await clock.advance(30_000);
  model.intercept = undefined;
  await clock.advance(6_000);
  expect(ids()).toEqual(['a']);
  expect(model.leases).toHaveLength(1);
  await a.close();
  await directory.close();
  expect(model.leases).toEqual([]);
});
