import { expect, test } from 'vitest';
import { connectionFor } from './s3-provider.ts';

const s3 = {
  endpoint: 'http://store:9000',
  region: 'eu-1',
  pathStyle: true,
  credentials: { accessKeyId: 'key', secretAccessKey: 'secret' },
};

test('a sink that names nothing uses the server and the keys of the cluster', () => {
  expect(connectionFor({}, s3)).toEqual({
    endpoint: 'http://store:9000',
    region: 'eu-1',
    forcePathStyle: true,
    credentials: s3.credentials,
  });
});

test('a program that names another server is never given the keys of the cluster for it', () => {
  const elsewhere = connectionFor({ endpoint: 'http://evil:9000' }, s3);
  expect(elsewhere.endpoint).toBe('http://evil:9000');
  expect(elsewhere.credentials).toBeUndefined();
  const own = { accessKeyId: 'own', secretAccessKey: 'too' };
  expect(connectionFor({ endpoint: 'http://other:9000', credentials: own }, s3).credentials).toEqual(own);
});

test('without a cluster everything is left to the environment', () => {
  expect(connectionFor({}, undefined)).toEqual({
    endpoint: undefined,
    region: undefined,
    forcePathStyle: undefined,
    credentials: undefined,
  });
});
