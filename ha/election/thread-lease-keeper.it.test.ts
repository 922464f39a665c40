import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { packageRoot } from '../../test-support/ensure-infra.ts';
import { until } from '../../test-support/until.ts';
import { sharedEtcd } from '../../test-support/vitest-shared.ts';
import { type CoordinationOptions, createCoordination } from '../coordination/create-coordination.ts';
import { ClusterKeys } from '../stores/cluster-keys.ts';
import { startReplica } from './election.fixture.ts';
import { ThreadLeaseKeeper } from './thread-lease-keeper.ts';

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A leader of a real election whose lease a real thread keeps, as a master has it. */
async function leaderWithThread(patienceMs: number) {
  const { endpoints } = await sharedEtcd();
  const options: CoordinationOptions = { type: 'etcd', endpoints: [...endpoints], namespace: '/lease-thread/' };
  const coordination = await createCoordination(deps, options);
  closers.push(() => coordination.close());
  const keeper = await ThreadLeaseKeeper.start(
    { ...deps, coordination },
    {
      workerUrl: pathToFileURL(join(packageRoot(), 'dist/ha/election/lease-thread.js')),
      coordination: options,
      times: { renewIntervalMs: 2_000 / 3, retryMs: 150 },
      patienceMs,
    },
  );
  closers.push(() => keeper.close());
  const keys = new ClusterKeys(`thread-${deps.random.hex(4)}`);
  const replica = startReplica({ coordination, clock: deps.clock, keys, keeper }, 'a');
  closers.push(() => replica.election.close());
  await until('a leader', () => replica.contender.leads);
  return { replica, coordination, keys };
}

/** As user code, a huge JSON or a long garbage collection would. */
function blockEventLoop(ms: number): void {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs);
}

test('a leader whose event loop is blocked for longer than the TTL keeps its lease and leads on, without a pause', async () => {
  const { replica, coordination, keys } = await leaderWithThread(20_000);
  const token = replica.contender.tokens[0];
  blockEventLoop(4_500);
  expect(replica.contender.leadership?.isValid()).toBe(true); // Before any message of the thread was heard.
  await until('a confirmation', async () => (await coordination.get(keys.leader))?.modRevision === token);
  expect(replica.contender.calls).toEqual(['granted']);
  expect(replica.contender.leadership?.isValid()).toBe(true);
});

test('a leader whose event loop hangs for too long loses its lease: the thread does not lead in its place', async () => {
  const { replica } = await leaderWithThread(300);
  const [first = 0n] = replica.contender.tokens;
  // Patience, one renewal that was just allowed, the TTL, and what etcd takes to notice.
  blockEventLoop(5_000);
  expect(replica.contender.leadership?.isValid()).toBe(false);
  await until('a new term', () => replica.contender.tokens.length === 2, { timeoutMs: 20_000 });
  expect(replica.contender.calls.filter((call) => call !== 'suspended')).toEqual(['granted', 'revoked', 'granted']);
  expect(replica.contender.tokens[1]).toBeGreaterThan(first);
});
