import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { expect, test } from 'vitest';
import { createS3Client, Rgw } from './rgw.ts';
import { sharedS3 } from './vitest-shared.ts';

test('the shared S3 server gives each asker an empty bucket of its own', async () => {
  const [one, other] = [await sharedS3(), await sharedS3()];
  expect(one.endpoint).toBe(other.endpoint);
  expect(one.bucket).not.toBe(other.bucket);
  const client = createS3Client(one);
  await client.send(new PutObjectCommand({ Bucket: one.bucket, Key: 'a/b', Body: Buffer.from('bytes') }));
  const object = await client.send(new GetObjectCommand({ Bucket: one.bucket, Key: 'a/b' }));
  expect(await object.Body?.transformToString()).toBe('bytes');
  await expect(client.send(new GetObjectCommand({ Bucket: other.bucket, Key: 'a/b' }))).rejects.toThrow(
    expect.objectContaining({ name: 'NoSuchKey' }),
  );
  client.destroy();
});

test('objects survive a killed gateway, a wrong secret is refused, another user sees nothing', async () => {
  await using rgw = await Rgw.start();
  const bucket = await rgw.createBucket();
  const client = createS3Client(rgw.access);
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'k', Body: Buffer.from('v') }));

  await rgw.kill();
  await expect(fetch(rgw.access.endpoint)).rejects.toThrow();
  await rgw.restart();
  const object = await client.send(new GetObjectCommand({ Bucket: bucket, Key: 'k' }));
  expect(await object.Body?.transformToString()).toBe('v');
  client.destroy();

  const read = async (access: typeof rgw.access) => {
    const other = createS3Client(access);
    await other.send(new GetObjectCommand({ Bucket: bucket, Key: 'k' })).finally(() => other.destroy());
  };
  const wrong = { ...rgw.access.credentials, secretAccessKey: 'wrong' };
  await expect(read({ ...rgw.access, credentials: wrong })).rejects.toThrow(
    expect.objectContaining({ name: 'SignatureDoesNotMatch' }),
  );
  await expect(read(await rgw.createUser('somebody'))).rejects.toThrow(
    expect.objectContaining({ name: 'AccessDenied' }),
  );
});
