import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, describe, expect, test } from 'vitest';
import { readCertificates, TestAuthority } from '../../test-support/certificates.ts';
import { SystemClock } from '../kernel/clock.ts';
import { silentLogger } from '../kernel/log.ts';
import { DEFAULT_EXCHANGE_OPTIONS } from './exchange-options.ts';
import { TcpTransport, type TransportTls } from './tcp-transport.ts';
import { transportContract } from './transport.contract.ts';
import type { WireHandlers } from './wire.ts';

const deps = { clock: new SystemClock(), log: silentLogger };
const LOOPBACK = { host: '127.0.0.1', port: 0 };
const dir = await mkdtemp(join(tmpdir(), 'millrace-tls-'));
afterAll(() => rm(dir, { recursive: true }));

const cluster = await TestAuthority.create(dir, 'cluster');
const member = await readCertificates(await cluster.issue('worker-1'));
const stranger = await readCertificates(await (await TestAuthority.create(dir, 'elsewhere')).issue('worker-1'));

const transport = (tls: TransportTls | undefined) =>
  new TcpTransport({ ...deps, tls }, { ...DEFAULT_EXCHANGE_OPTIONS, connectTimeoutMs: 10_000 });

const nobody: WireHandlers = { onFrame: () => undefined, onDrain: () => undefined, onClosed: () => undefined };

const closed = (socket: Socket) => new Promise((resolve) => socket.once('close', resolve));

describe('mutual TLS', () => {
  describe('as every transport', () =>
    transportContract((options) => new TcpTransport({ ...deps, tls: member }, options)));

  test('a client without a certificate, with one of another authority, or without TLS is refused', async () => {
    let served = 0;
    const server = await transport(member).listen(LOOPBACK, () => {
      served++;
      return nobody;
    });
    try {
      const signal = new AbortController().signal;
      const { port } = server.address;
      for (const tls of [undefined, stranger]) {
        const connecting = transport(tls).connect(server.address, () => nobody, signal);
        await expect(connecting).rejects.toMatchObject({ code: expect.stringMatching('UNAVAILABLE|CORRUPT') });
      }
      const anonymous = connectTls({ ...LOOPBACK, port, ca: member.ca, checkServerIdentity: () => undefined });
      anonymous.on('error', () => undefined);
      anonymous.write('MRDX');
      await closed(anonymous);
      const plain = connectTcp({ ...LOOPBACK, port });
      plain.on('error', () => undefined);
      plain.write('MRDX\0\x02\0\0');
      await closed(plain);
      expect(served).toBe(0);
      await transport(member).connect(server.address, () => nobody, signal);
      expect(served).toBe(1);
    } finally {
      await server.close();
    }
  });

  test('a server of another authority, and one without TLS, are not believed', async () => {
    for (const tls of [stranger, undefined]) {
      const server = await transport(tls).listen(LOOPBACK, () => nobody);
      const signal = new AbortController().signal;
      await expect(transport(member).connect(server.address, () => nobody, signal)).rejects.toMatchObject({
        code: 'UNAVAILABLE',
      });
      await server.close();
    }
  });
});
