import { inspect } from 'node:util';
import { CreateMultipartUploadCommand, ListMultipartUploadsCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ObjectStore } from '../../src/contracts/object-store.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { digestOf } from '../../src/kernel/digest.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { createS3Client, Rgw } from '../../test-support/rgw.ts';
import { until } from '../../test-support/until.ts';
import { HttpProxy } from './http-proxy.fixture.ts';
import { bytesOf, keysOf, objectStoreContract, same } from './object-store.contract.ts';
import { S3ObjectStore, type S3ObjectStoreOptions } from './s3-object-store.ts';

/** Against a real server: Ceph's RADOS gateway. */
let rgw: Rgw;
let bucket: string;
let prefixes = 0;
const open: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  rgw = await Rgw.start();
  bucket = await rgw.createBucket();
});

afterAll(() => rgw?.close());

beforeEach(() => {
  prefixes++;
});

afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

function connect(options: Partial<S3ObjectStoreOptions> = {}): S3ObjectStore {
  const { endpoint, region, credentials } = rgw.access;
  const prefix = `test/${prefixes}`;
  const deps = { clock: new SystemClock(), log: silentLogger };
  const store = S3ObjectStore.start(deps, { bucket, prefix, endpoint, region, credentials, ...options });
  open.push(store);
  return store;
}

async function proxied(): Promise<{ store: S3ObjectStore; proxy: HttpProxy }> {
  const proxy = await HttpProxy.start(rgw.access.endpoint);
  const store = connect({ endpoint: proxy.endpoint });
  open.push(proxy);
  return { store, proxy };
}

async function unfinishedUploads(): Promise<string[]> {
  const client = createS3Client(rgw.access);
  try {
    const { Uploads = [] } = await client.send(
      new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: `test/${prefixes}/` }),
    );
    return Uploads.map(({ Key = '' }) => Key);
  } finally {
    client.destroy();
  }
}

describe('the contract', () => {
  objectStoreContract(async () => ({ store: connect(), other: connect(), close: async () => undefined }));
});

test('stores under different prefixes of a bucket do not see each other, nor prefixes that merely begin alike', async () => {
  const one = connect({ prefix: 'ns/one' });
  const two = connect({ prefix: 'ns/on' });
  await one.put('k', bytesOf(1));
  await two.put('e/k', bytesOf(2));
  expect(await keysOf(one, '')).toEqual(['k']);
  expect(await keysOf(two, '')).toEqual(['e/k']);
  expect(one.description).toBe(`s3://${bucket}/ns/one`);
});

test('a listing longer than one page is whole and in order', async () => {
  const store = connect();
  const keys = Array.from({ length: 1_103 }, (_, i) => `page/${String(i).padStart(5, '0')}`);
  for (let at = 0; at < keys.length; at += 60)
    await Promise.all(keys.slice(at, at + 60).map((key) => store.put(key, bytesOf(1))));
  expect(await keysOf(store, 'page/')).toEqual(keys);
  await store.delete(keys);
  expect(await keysOf(store, '')).toEqual([]);
}, 60_000);

test('a put larger than one request takes is split and read back whole', async () => {
  const store = connect();
  const bytes = bytesOf(70 * 1024 * 1024);
  await store.put('huge', bytes);
  expect(await store.size('huge')).toBe(bytes.length);
  expect(digestOf(await store.get('huge'))).toBe(digestOf(bytes));
  expect(await unfinishedUploads()).toEqual([]);
}, 60_000);

describe('a server that fails', () => {
  test('killed: every call is UNAVAILABLE with a hint, soon; when it is back every call works, on old connections too', async () => {
    const store = connect();
    await Promise.all(Array.from({ length: 10 }, (_, i) => store.put(`k${i}`, bytesOf(100, i))));
    const upload = await store.upload('up');
    await upload.write(bytesOf(6_000_000));
    await rgw.kill();
    const startMs = performance.now();
    const unavailable = { code: 'UNAVAILABLE', hint: expect.stringContaining('reached') };
    await Promise.all([
      expect(store.put('new', bytesOf(1))).rejects.toMatchObject(unavailable),
      expect(store.get('k0')).rejects.toMatchObject(unavailable),
      expect(store.getRange('k0', 0, 1)).rejects.toMatchObject(unavailable),
      expect(store.size('k0')).rejects.toMatchObject(unavailable),
      expect(store.delete(['k0'])).rejects.toMatchObject(unavailable),
      expect(store.delete(['k0', 'k1'])).rejects.toMatchObject(unavailable),
      expect(keysOf(store, '')).rejects.toMatchObject(unavailable),
      expect(upload.write(bytesOf(6_000_000))).rejects.toMatchObject(unavailable),
    ]);
    expect(performance.now() - startMs).toBeLessThan(5_000);
    await rgw.restart();
    await Promise.all(
      Array.from({ length: 10 }, async (_, i) => expect(same(await store.get(`k${i}`), bytesOf(100, i))).toBe(true)),
    );
    // A part was lost, so the object must not appear.
    await expect(upload.complete()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await upload.abort();
    expect(await unfinishedUploads()).toEqual([]);
    expect((await keysOf(store, '')).filter((key) => !/^k\d$/.test(key))).toEqual([]);
  });

  test('hung: calls end by their time limit, and work when it goes on', async () => {
    const store = connect({ timeoutMs: 1_000 });
    await store.put('k', bytesOf(10));
    await rgw.pause();
    try {
      const startMs = performance.now();
      await Promise.all([
        expect(store.get('k')).rejects.toMatchObject({ code: 'UNAVAILABLE' }),
        expect(store.put('l', bytesOf(10))).rejects.toMatchObject({ code: 'UNAVAILABLE' }),
        expect(keysOf(store, '')).rejects.toMatchObject({ code: 'UNAVAILABLE' }),
      ]);
      expect(performance.now() - startMs).toBeLessThan(20_000);
    } finally {
      rgw.resume();
    }
    await until('it to work again', async () => same(await store.get('k'), bytesOf(10)));
  });

  test('a caller that aborts, and a store that closes, end a call that waits', async () => {
    const store = connect();
    const other = connect();
    await store.put('k', bytesOf(10));
    await rgw.pause();
    try {
      const controller = new AbortController();
      const waiting = store.get('k', controller.signal);
      const closing = other.get('k');
      controller.abort(new Error('enough'));
      await expect(waiting).rejects.toThrow('enough');
      await Promise.all([expect(closing).rejects.toMatchObject({ code: 'CLOSED' }), other.close()]);
    } finally {
      rgw.resume();
    }
  });

  test('5xx answers are tried again a bounded number of times, then UNAVAILABLE', async () => {
    const { store, proxy } = await proxied();
    let asked = 0;
    let failures = 2;
    proxy.meddle = ({ method, url }) => {
      if (method !== 'PUT' || !url.includes('/k')) return undefined;
      asked++;
      return failures-- > 0 ? { status: 503 } : undefined;
    };
    await store.put('k', bytesOf(10));
    expect(asked).toBe(3);
    failures = Number.POSITIVE_INFINITY;
    asked = 0;
    await expect(store.put('k2', bytesOf(10))).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('503'),
    });
    expect(asked).toBe(3);
  });

  test('an answer that breaks off in the middle is read again, and UNAVAILABLE if it always does', async () => {
    const { store, proxy } = await proxied();
    const bytes = bytesOf(2_000_000);
    await store.put('k', bytes);
    let cuts = 2;
    proxy.meddle = ({ method }) => (method === 'GET' && cuts-- > 0 ? { cutAfterBytes: 500_000 } : undefined);
    expect(same(await store.get('k'), bytes)).toBe(true);
    cuts = Number.POSITIVE_INFINITY;
    await expect(store.get('k')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('broke off'),
    });
  });

  test('an upload whose completion is not confirmed is complete if the object is there', async () => {
    const { store, proxy } = await proxied();
    const upload = await store.upload('up');
    await upload.write(bytesOf(6_000_000));
    let lost = 0;
    proxy.meddle = ({ method, url }) => {
      if (method !== 'POST' || !url.includes('uploadId=') || lost > 0) return undefined;
      lost++;
      return { cutAfterBytes: 0 };
    };
    await upload.complete();
    expect(lost).toBe(1);
    expect(await store.size('up')).toBe(6_000_000);
  });

  test('a server that cannot delete many at once is asked one by one', async () => {
    const { store, proxy } = await proxied();
    const keys = Array.from({ length: 50 }, (_, i) => `d/${i}`);
    await Promise.all([...keys, 'kept'].map((key) => store.put(key, bytesOf(1))));
    const requests = { together: 0, single: 0 };
    let able = true;
    proxy.meddle = ({ method, url }) => {
      if (method === 'DELETE') requests.single++;
      if (method !== 'POST' || !url.includes('delete')) return undefined;
      requests.together++;
      return able ? undefined : { status: 400 };
    };
    await store.delete(keys.slice(0, 10));
    expect(requests).toEqual({ together: 1, single: 0 });
    able = false;
    await store.delete(keys.slice(10, 25));
    await store.delete(keys.slice(25));
    expect(requests).toEqual({ together: 2, single: 40 });
    expect(await keysOf(store, '')).toEqual(['kept']);
  });

  test('a bucket that is not there is never taken for objects that are not there', async () => {
    const store = connect({ bucket: 'no-such-bucket-here' });
    const missing = { code: 'UNAVAILABLE', hint: expect.stringContaining('Create the bucket') };
    await expect(store.get('k')).rejects.toMatchObject(missing);
    await expect(store.getRange('k', 0, 5)).rejects.toMatchObject(missing);
    await expect(store.size('k')).rejects.toMatchObject(missing);
    await expect(store.put('k', bytesOf(1))).rejects.toMatchObject(missing);
    await expect(keysOf(store, '')).rejects.toMatchObject(missing);
  });
});

describe('secrets', () => {
  test('wrong keys, and other users, are refused with a hint; no message, cause or description shows a secret', async () => {
    const wrong = { accessKeyId: rgw.access.credentials.accessKeyId, secretAccessKey: 'the-wrong-secret-value' };
    const stranger = { accessKeyId: 'AKIANOBODYATALL', secretAccessKey: 'another-wrong-secret' };
    const neighbour = (await rgw.createUser('neighbour')).credentials;
    for (const credentials of [wrong, stranger, neighbour]) {
      const store = connect({ credentials });
      for (const call of [
        (s: ObjectStore) => s.put('k', bytesOf(1)),
        (s: ObjectStore) => s.get('k'),
        (s: ObjectStore) => keysOf(s, ''),
      ]) {
        const error = (await call(store).catch((thrown: unknown) => thrown)) as Error;
        expect(error).toMatchObject({ code: 'UNAVAILABLE', hint: expect.stringContaining('secret key') });
        const shown = inspect(error, { depth: 12, showHidden: true });
        for (const secret of Object.values(credentials)) expect(shown).not.toContain(secret);
        expect(shown).not.toMatch(/Signature=|Authorization/i);
      }
      expect(store.description).not.toContain('secret');
    }
  });
});

test('uploads that nobody has finished for a day are swept at start, younger ones are not', async () => {
  const client = createS3Client(rgw.access);
  await client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key: `test/${prefixes}/dead` }));
  client.destroy();
  const { endpoint, region, credentials } = rgw.access;
  const options = { bucket, prefix: `test/${prefixes}`, endpoint, region, credentials };
  const today = S3ObjectStore.start({ clock: new SystemClock(), log: silentLogger }, options);
  await today.size('k');
  await today.close();
  expect(await unfinishedUploads()).toHaveLength(1);
  const clock = new SystemClock();
  clock.wallMs = () => Date.now() + 25 * 3_600_000;
  const tomorrow = S3ObjectStore.start({ clock, log: silentLogger }, options);
  await until('the sweep', async () => (await unfinishedUploads()).length === 0);
  await tomorrow.close();
});
