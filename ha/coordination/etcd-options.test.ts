import { expect, test } from 'vitest';
import { parseEtcdConnection } from './etcd-options.ts';

const good = {
  endpoints: ['http://etcd-0:2379', 'http://etcd-1', 'http://[::1]:12379/'],
  namespace: '/millrace/main/',
};

test('endpoints are made whole, and the description names them and the namespace', () => {
  const { endpoints, description, deadlineMs } = parseEtcdConnection(good);
  expect(endpoints).toEqual(['http://etcd-0:2379', 'http://etcd-1:2379', 'http://[::1]:12379']);
  expect(description).toBe('etcd:etcd-0:2379,etcd-1:2379,[::1]:12379/millrace/main/');
  expect(deadlineMs).toBe(1_000);
});

test('every problem is named at once, and no password', () => {
  const message = messageOf({
    endpoints: [
      'etcd-0:2379',
      'http://root:hunter2@etcd-1:2379',
      'https://etcd-2:2379/v3',
      'http://a',
      'https://b',
      'no url',
    ],
    namespace: 'millrace',
    deadlineMs: 1,
    auth: { username: 'me', password: '' },
    tls: { cert: Buffer.from('x') },
  });
  for (const part of [
    'must begin with http',
    'not hold a user',
    'no path',
    'mix',
    'TLS is configured',
    'needs its key',
    'namespace',
    'deadline',
    'both be set',
    'not a URL',
  ])
    expect(message).toContain(part);
  expect(message).not.toContain('hunter2');
});

test('no endpoints at all is a problem', () => {
  expect(messageOf({ ...good, endpoints: [] })).toContain('no endpoints');
});

function messageOf(options: Parameters<typeof parseEtcdConnection>[0]): string {
  try {
    parseEtcdConnection(options);
  } catch (error) {
    expect(error).toMatchObject({ code: 'CONFIGURATION' });
    return (error as Error).message;
  }
  throw new Error('it was taken');
}
