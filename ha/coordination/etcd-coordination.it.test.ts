import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { reservePort } from '../../test-support/free-ports.ts';
import { LatencyProxy } from '../../test-support/latency-proxy.ts';
import { until } from '../../test-support/until.ts';
import { absent, brief, coordinationContract, ordered, put, values, watching } from './coordination.contract.ts';
import type { Coordination } from './coordination.ts';
import { EtcdCoordination, type EtcdCoordinationOptions } from './etcd-coordination.ts';

/** A real cluster of three; every test has a namespace of its own. */
let cluster: EtcdCluster;
let namespaces = 0;
const clients: Coordination[] = [];
const proxies: LatencyProxy[] = [];

beforeAll(async () => {
  cluster = await EtcdCluster.start();
});

afterAll(() => cluster?.close());

afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  for (const proxy of proxies.splice(0)) await proxy.close();
  for (const member of cluster.members) if (!member.running) await member.start();
  await cluster.untilHealthy();
});

function connect(options: Partial<EtcdCoordinationOptions> = {}): EtcdCoordination {
  const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
  const namespace = `/test/${namespaces}/`;
  const client = new EtcdCoordination(deps, { endpoints: cluster.endpoints, namespace, ...options });
  clients.push(client);
  return client;
}

const freshNamespace = () => {
  namespaces++;
};

/** Compacts to the newest revision and waits until every member has done so. */
async function compact(client: Coordination): Promise<void> {
  const revision = String((await client.list('')).revision);
  const post = async (endpoint: string, path: string, body: object) =>
    (await fetch(`${endpoint}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body) })).json() as Promise<{ error?: string }>;
  await post(cluster.member(0).endpoint, 'compaction', { revision });
  const old = { key: 'YQ==', revision: String(BigInt(revision) - 1n), serializable: true };
  for (const { endpoint } of cluster.members)
    await until(`${endpoint} to have compacted`, async () => (await post(endpoint, 'range', old)).error?.includes('compacted'));
}

describe('the contract', () => {
  coordinationContract(async () => {
    freshNamespace();
    return {
      client: async () => connect(),
      compact: ([client]) => compact(client as Coordination),
      minTtlMs: 1_000,
      expiryLagMs: 1_500,
      close: async () => undefined,
    };
  });
});

test('clusters under different namespaces do not see each other', async () => {
  freshNamespace();
  const one = connect({ namespace: '/test/ns-a/' });
  const two = connect({ namespace: '/test/ns-b/' });
  const { revision } = await one.txn({ guards: [], then: [put('k', 'one')] });
  const seen = watching(two, '', revision);
  await two.txn({ guards: [absent('k')], then: [put('k', 'two')] });
  await one.txn({ guards: [], then: [{ kind: 'deletePrefix', prefix: '' }] });
  await two.txn({ guards: [], then: [put('end', 'v')] });
  await until('the last change', () => seen.length >= 2);
  expect(seen.map(brief)).toEqual(['put k', 'put end']);
});

test('C5: a transaction whose answer is lost is UNKNOWN_OUTCOME, has happened once, and is not sent again', async () => {
  freshNamespace();
  const direct = connect();
  const proxy = await proxyTo(0);
  const client = connect({ endpoints: [`http://127.0.0.1:${proxy.port}`] });
  await client.get('warm');
  // Requests pass; answers do not.
  proxy.delayMs = 0;
  for (let round = 0; round < 5; round++) {
    const { revision } = await direct.list('');
    const cut = answerCutter(proxy);
    const outcome = client.txn({ guards: [absent(`k${round}`)], then: [put(`k${round}`, 'mine')] });
    await cut;
    await expect(outcome).rejects.toMatchObject({ code: 'UNKNOWN_OUTCOME' });
    await until('it to have happened', async () => (await direct.get(`k${round}`))?.value === 'mine');
    expect((await direct.get(`k${round}`))?.modRevision).toBe(revision + 1n);
    proxy.mode = 'forward';
    await until('the client to work again', () => client.get('warm').then(() => true));
  }
});
