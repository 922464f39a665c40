import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readCertificates, TestAuthority } from '../../test-support/certificates.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asFencingToken } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { connectGateway } from './connect-gateway.ts';
import { RpcServer } from './rpc-server.ts';
import { echoSpec } from './testing/echo-spec.ts';
import type { RpcTls } from './tls.ts';

const dir = await mkdtemp(join(tmpdir(), 'millrace-rpc-tls-'));
afterAll(() => rm(dir, { recursive: true }));

async function certificates(authority: TestAuthority, name: string): Promise<RpcTls> {
  const { ca, cert, key } = await readCertificates(await authority.issue(name));
  return { ca: Buffer.from(ca), cert: Buffer.from(cert), key: Buffer.from(key) };
}

async function call(port: number, tls: RpcTls | undefined): Promise<unknown> {
  const gateway = connectGateway(echoSpec, 'echo', `127.0.0.1:${port}`, {
    token: asFencingToken(1n),
    clock: new SystemClock(),
    log: silentLogger,
    ...(tls === undefined ? {} : { tls }),
  });
  try {
    return await gateway.echo({ value: 'hello' });
  } finally {
    await gateway.close();
  }
}

test('with TLS only holders of a certificate of the cluster are answered, and only such a server is asked', async () => {
  const cluster = await TestAuthority.create(dir, 'cluster');
  const elsewhere = await TestAuthority.create(dir, 'elsewhere');
  const [master, worker] = [await certificates(cluster, 'master'), await certificates(cluster, 'worker')];
  const stranger = await certificates(elsewhere, 'worker');
  const served: unknown[] = [];
  const server = await RpcServer.start({ host: '127.0.0.1', port: 0, log: silentLogger, tls: master });
  server.serve('echo', echoSpec, {
    echo: async (request) => {
      served.push(request);
      return request;
    },
    token: async (_request, token) => ({ token }),
    hang: () => new Promise(() => {}),
    hangReading: () => new Promise(() => {}),
    fail: async () => ({}),
  });
  const impostor = await RpcServer.start({ host: '127.0.0.1', port: 0, log: silentLogger, tls: stranger });
  try {
    for (const tls of [stranger, undefined]) {
      await expect(call(server.port, tls)).rejects.toMatchObject({
        code: expect.stringMatching('UNAVAILABLE|UNKNOWN'),
      });
    }
    expect(served).toEqual([]);
    await expect(call(impostor.port, worker)).rejects.toMatchObject({
      code: expect.stringMatching('UNAVAILABLE|UNKNOWN'),
    });
    expect(await call(server.port, worker)).toEqual({ value: 'hello' });
  } finally {
    await server.close();
    await impostor.close();
  }
});
