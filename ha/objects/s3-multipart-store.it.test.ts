import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import type { SharedS3 } from '../../test-support/shared-infra.ts';
import { sharedS3 } from '../../test-support/vitest-shared.ts';
import { multipartStoreContract } from './multipart-store.contract.ts';
import { bytesOf } from './object-store.contract.ts';
import { S3MultipartStore } from './s3-multipart-store.ts';
import { S3ObjectStore, type S3ObjectStoreOptions } from './s3-object-store.ts';

/** Against a real server: Ceph's RADOS gateway. */
let s3: SharedS3;
let prefixes = 0;
const open: { close(): Promise<void> }[] = [];
const deps = { clock: new SystemClock(), log: silentLogger };

beforeAll(async () => {
  s3 = await sharedS3();
});
afterAll(async () => {
  for (const one of open) await one.close();
});

function connect(options: Partial<S3ObjectStoreOptions> = {}): S3MultipartStore {
  const { endpoint, region, credentials, bucket } = s3;
  const store = S3MultipartStore.open(deps, { bucket, endpoint, region, credentials, ...options });
  open.push(store);
  return store;
}

describe('the contract', () => {
  multipartStoreContract(async () => {
    const { endpoint, region, credentials, bucket } = s3;
    const objects = new S3ObjectStore(deps, { bucket, endpoint, region, credentials });
    open.push(objects);
    return {
      store: connect(),
      other: connect(),
      prefix: `test-${prefixes++}/`,
      read: (key) => objects.get(key),
    };
  });
});

test('more uploads than fit on one page of a listing are all found', async () => {
  const store = connect();
  const keys = Array.from({ length: 1_010 }, (_, i) => `pages/${String(i).padStart(5, '0')}`);
  for (let at = 0; at < keys.length; at += 60)
    await Promise.all(keys.slice(at, at + 60).map((key) => store.create(key)));
  const found = [];
  for await (const upload of store.list('pages/')) found.push(upload);
  expect(found.map(({ key }) => key).sort()).toEqual(keys);
  for (let at = 0; at < found.length; at += 60)
    await Promise.all(found.slice(at, at + 60).map((upload) => store.abort(upload)));
});

test('wrong credentials, a server that is away and a bucket that is not there say so, without the secret', async () => {
  const key = 'refused/key';
  const secretAccessKey = 'a-secret-that-is-wrong';
  const refused = connect({ credentials: { accessKeyId: s3.credentials.accessKeyId, secretAccessKey } });
  for (const store of [refused, connect({ endpoint: 'http://127.0.0.1:1' }), connect({ bucket: 'not-there' })]) {
    const error: unknown = await store.create(key).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'UNAVAILABLE' });
    expect(String(error) + String((error as Error).stack)).not.toContain(secretAccessKey);
  }
  const name = { key, uploadId: 'no-such-upload' };
  expect(await connect().complete(name, [{ number: 1, etag: '"0"' }])).toBe('gone');
  await expect(connect().uploadPart(name, 1, bytesOf(1))).rejects.toThrow(/NoSuchUpload/);
});
