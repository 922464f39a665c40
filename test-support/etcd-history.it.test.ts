import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { currentRevision, etcdHistory, etcdKeys, remove } from './etcd-history.ts';
import { sharedEtcd } from './vitest-shared.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');

test('every change under a prefix is told in order, transactions as one, and nothing of others', async () => {
  const [endpoint = ''] = (await sharedEtcd()).endpoints;
  const root = `/history/${randomUUID()}/`;
  const call = (name: string, body: object) =>
    fetch(`${endpoint}/v3/kv/${name}`, { method: 'POST', body: JSON.stringify(body) });
  const put = (key: string, value: string) => call('put', { key: base64(root + key), value: base64(value) });
  const from = await currentRevision(endpoint);
  await put('a', '1');
  await put('a', '2');
  await call('put', { key: base64(`${root.slice(0, -1)}0`), value: base64('another') });
  await call('txn', {
    success: [
      { request_put: { key: base64(`${root}b`), value: base64('3') } },
      { request_delete_range: { key: base64(`${root}a`) } },
    ],
  });
  await remove(endpoint, `${root}b`);
  expect(await etcdKeys(endpoint, root)).toEqual(new Map());
  const history = await etcdHistory(endpoint, root, from);
  expect(history.map(({ kind, key, value }) => [kind, key.slice(root.length), value])).toEqual([
    ['put', 'a', '1'],
    ['put', 'a', '2'],
    ['put', 'b', '3'],
    ['delete', 'a', ''],
    ['delete', 'b', ''],
  ]);
  expect(history[2]?.revision).toBe(history[3]?.revision);
  // What asking writes is not told, and does not stay.
  expect(await etcdHistory(endpoint, root, from)).toEqual(history);
  expect(await etcdKeys(endpoint, root)).toEqual(new Map());
});
