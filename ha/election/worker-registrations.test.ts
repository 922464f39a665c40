import { expect, test } from 'vitest';
import { asTaskManagerId } from '../../src/kernel/ids.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { ManualClock } from '../../src/kernel/manual-clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { testKeys } from './election.fixture.ts';
import { registerWorker, WorkerRegistrations } from './worker-registrations.ts';

function world() {
  const clock = new ManualClock();
  const model = new EtcdModel({ clock });
  const deps = (name: string) => ({
    coordination: model.client({ name }),
    keys: testKeys,
    clock,
    random: new SeededRandom(1),
    log: silentLogger,
  });
  const worker = { taskManagerId: asTaskManagerId('w'), rpcAddress: 'h:1' };
  return { clock, model, deps, worker };
}

test('whether there are workers is unknown until the store has said so, and while it is away', async () => {
  const { clock, model, deps, worker } = world();
  const registrations = WorkerRegistrations.start(deps('master'));
  expect(registrations.list()).toBeUndefined();
  const registered = registerWorker(deps('w'), worker);
  await clock.advance(100);
  expect(registrations.list()).toEqual([worker]);
  model.intercept = () => ({ kind: 'hang' });
  await clock.advance(600_000);
  expect(registrations.list()).toBeUndefined();
  // An outage forgets nobody.
  model.intercept = undefined;
  await clock.advance(10_000);
  expect(registrations.list()).toEqual([worker]);
  const closing = registered.close();
  await clock.advance(100);
  await closing;
  expect(registrations.list()).toEqual([]);
  await registrations.close();
});

test('after a broken watch the workers are known as soon as the store answers: a new leader waits for whom it does not know', async () => {
  const { clock, model, deps, worker } = world();
  const client = model.client({ name: 'master' });
  const registrations = WorkerRegistrations.start({ ...deps('master'), coordination: client });
  const registered = registerWorker(deps('w'), worker);
  await clock.advance(100);
  client.breakWatches('the leader of the store died');
  expect(registrations.list()).toBeUndefined();
  await clock.advance(50);
  expect(registrations.list()).toEqual([worker]);
  const closing = registered.close();
  await clock.advance(100);
  await closing;
  await registrations.close();
});

test('a worker that was taken for dead and lives is listed again', async () => {
  const { clock, deps, worker } = world();
  const registrations = WorkerRegistrations.start(deps('master'));
  const registered = registerWorker(deps('w'), worker);
  await clock.advance(100);
  registrations.forget(worker.taskManagerId);
  await clock.advance(100);
  expect(registrations.list()).toEqual([]);
  await clock.advance(11_000);
  expect(registrations.list()).toEqual([worker]);
  const closing = registered.close();
  await clock.advance(100);
  await closing;
  await registrations.close();
});
