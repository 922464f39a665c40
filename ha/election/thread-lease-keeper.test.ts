import { expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { type Logger, silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { until } from '../../test-support/until.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { ThreadLeaseKeeper } from './thread-lease-keeper.ts';

const clock = new SystemClock();

/** A thread that behaves as given, in place of the real one (which needs a real store). */
async function keeperWith(thread: string) {
  const model = new EtcdModel({ clock });
  const errors: string[] = [];
  const log: Logger = { ...silentLogger, error: (_fields, message) => void errors.push(message) };
  const source = `import { parentPort } from 'node:worker_threads'; ${thread}`;
  const keeper = await ThreadLeaseKeeper.start(
    { coordination: model.client(), clock, random: new SystemRandom(), log },
    {
      workerUrl: new URL(`data:text/javascript,${encodeURIComponent(source)}`),
      coordination: { type: 'memory' },
      times: { renewIntervalMs: 20, retryMs: 5 },
      patienceMs: 1_000,
    },
  );
  return { keeper, model, errors };
}

test('a thread that cannot start leaves the leases to the main thread, and says so', async () => {
  const { keeper, model, errors } = await keeperWith(`throw new Error('no store');`);
  const lease = model.grantLease(60_000);
  let renewed = 0;
  keeper.keep(lease.id, { renewed: () => renewed++, gone: () => undefined });
  await until('renewals by the main thread', () => renewed >= 2);
  expect(errors).toEqual(['the lease thread has ended, leases are kept on the main thread']);
  await keeper.close();
});

test('a thread that dies while it keeps a lease hands it to the main thread', async () => {
  const dying = `parentPort.on('message', () => process.exit(3)); parentPort.postMessage({ kind: 'ready' });`;
  const { keeper, model, errors } = await keeperWith(dying);
  const lease = model.grantLease(60_000);
  let renewed = 0;
  const kept = keeper.keep(lease.id, { renewed: () => renewed++, gone: () => undefined });
  await until('renewals by the main thread', () => renewed >= 2);
  expect(errors).toHaveLength(1);
  expect(kept.aliveUntilMs()).toBeGreaterThan(clock.nowMs());
  kept.release();
  const before = renewed;
  await keeper.close();
  expect(renewed).toBe(before);
});

test('what the thread knows is known without waiting for its message', async () => {
  const quiet = `
    parentPort.on('message', (message) => {
      if (message.kind === 'close') parentPort.close();
      if (message.kind !== 'keep') return;
      Atomics.store(new BigInt64Array(message.alive), 0, process.hrtime.bigint() / 1000n + 5_000_000n);
    });
    parentPort.postMessage({ kind: 'ready' });`;
  const { keeper, model } = await keeperWith(quiet);
  const kept = keeper.keep(model.grantLease(60_000).id, { renewed: () => undefined, gone: () => undefined });
  const sinceMs = clock.nowMs();
  await until('the shared word', () => kept.aliveUntilMs() !== undefined);
  expect(kept.aliveUntilMs()).toBeGreaterThan(sinceMs + 4_900);
  expect(kept.aliveUntilMs()).toBeLessThan(clock.nowMs() + 5_100);
  await keeper.close();
});
