import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { EtcdCluster } from './etcd-cluster.ts';
import { until } from './until.ts';
import { sharedEtcd } from './vitest-shared.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');

async function call(endpoint: string, path: string, body: object): Promise<{ kvs?: { value: string }[] }> {
  const signal = AbortSignal.timeout(1_000);
  const response = await fetch(`${endpoint}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body), signal });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as { kvs?: { value: string }[] };
}

const put = (endpoint: string, key: string, value: string) =>
  call(endpoint, 'put', { key: base64(key), value: base64(value) });

async function get(endpoint: string, key: string): Promise<string | undefined> {
  const { kvs } = await call(endpoint, 'range', { key: base64(key) });
  return kvs?.[0] === undefined ? undefined : Buffer.from(kvs[0].value, 'base64').toString('utf8');
}

test('three members agree, survive the death of their leader, and the dead one catches up', async () => {
  const cluster = await EtcdCluster.start();
  const folder = dirname(cluster.member(0).logFile);
  try {
    const [first = '', second = ''] = cluster.endpoints;
    await put(first, 'a', '1');
    expect(await get(second, 'a')).toBe('1');

    const leader = await cluster.leader();
    await cluster.member(leader).kill();
    expect(cluster.member(leader).running).toBe(false);
    const survivor = cluster.member((leader + 1) % 3).endpoint;
    await until('a write without the old leader', () => put(survivor, 'a', '2'));
    expect(await cluster.leader()).not.toBe(leader);

    await cluster.member(leader).restart();
    expect(await get(cluster.member(leader).endpoint, 'a')).toBe('2');
  } finally {
    await cluster.close();
  }
  expect(cluster.members.every((member) => !member.running)).toBe(true);
  expect(existsSync(folder)).toBe(false);
});

test('a paused leader is replaced, and follows when it goes on', async () => {
  await using cluster = await EtcdCluster.start();
  const leader = await cluster.leader();
  await cluster.member(leader).pause();
  const survivor = cluster.member((leader + 1) % 3).endpoint;
  await until('a write without the paused leader', () => put(survivor, 'b', '1'));
  cluster.member(leader).resume();
  await until('the old leader to know', async () => (await get(cluster.member(leader).endpoint, 'b')) === '1');
});

test('a single member keeps its data over kill -9, with the default timers too', async () => {
  await using cluster = await EtcdCluster.start({ members: 1, timers: 'default' });
  await put(cluster.member(0).endpoint, 'c', 'kept');
  await cluster.member(0).restart();
  expect(await get(cluster.member(0).endpoint, 'c')).toBe('kept');
});

test('the shared cluster is the same for everyone who asks', async () => {
  const [one, other] = await Promise.all([sharedEtcd(), sharedEtcd()]);
  expect(one).toEqual(other);
  await put(one.endpoints[0] ?? '', 'etcd-cluster-test/d', 'shared');
  expect(await get(one.endpoints[1] ?? '', 'etcd-cluster-test/d')).toBe('shared');
});
