import { createServer as createHttp } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { afterEach, expect, test } from 'vitest';
import { IDENTITY, identityGatewaySpec } from '../contracts/identity-gateway.ts';
import type { LeaderAddress } from '../contracts/leadership.ts';
import { SystemClock } from '../kernel/clock.ts';
import { silentLogger } from '../kernel/log.ts';
import { SeededRandom } from '../kernel/random.ts';
import { releasePorts, reservePort } from '../../test-support/free-ports.ts';
import { until } from '../../test-support/until.ts';
import { CONTROL_PORTS, controlPorts } from './control-ports.ts';
import { RpcLeaderProbe } from './leader-probe.ts';
import { RpcServer } from './rpc-server.ts';

const probe = new RpcLeaderProbe({ clock: new SystemClock(), deadlineMs: 10_000 });
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function leaderAt(port: number, incarnation = 'incarnation-1'): LeaderAddress {
  const rpcAddress = `127.0.0.1:${port}`;
  return { replicaId: 'jobmanager-0', incarnation, rpcAddress, restUrl: 'http://127.0.0.1:1', electedWallMs: 0 };
}

async function master(incarnation: string, port = 0): Promise<RpcServer> {
  const server = await RpcServer.start({ host: '127.0.0.1', port, log: silentLogger, limits: { drainMs: 1 } });
  server.serve(IDENTITY, identityGatewaySpec, { identify: async () => ({ replicaId: 'jobmanager-0', incarnation }) });
  closers.push(() => server.close());
  return server;
}

async function stranger(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined); // Probes hang up as they like.
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

const ask = async (port: number, incarnation?: string, by = probe) => {
  const answer = await by.connect(leaderAt(port, incarnation), () => undefined);
  if (answer.kind === 'same') closers.push(answer.close);
  return answer.kind;
};

test('the leader is known by its incarnation, and its end is felt on the connection that is kept', async () => {
  const server = await master('incarnation-1');
  let lost = 0;
  const answer = await probe.connect(leaderAt(server.port), () => lost++);
  expect(answer.kind).toBe('same');
  for (let i = 0; i < 5; i++) expect(await ask(server.port)).toBe('same');
  expect(lost).toBe(0);
  await server.close();
  await until('the connection to be lost', () => lost === 1);
  expect(await ask(server.port)).toBe('refused');
});

test('a connection that the standby closes itself is not lost', async () => {
  const server = await master('incarnation-1');
  let lost = 0;
  const answer = await probe.connect(leaderAt(server.port), () => lost++);
  if (answer.kind === 'same') answer.close();
  await server.close();
  expect(lost).toBe(0);
});

test('a port that nobody listens on is refused', async () => {
  const port = await reservePort();
  closers.push(() => releasePorts([port]));
  expect(await ask(port)).toBe('refused');
});

test('another incarnation on the same port is a stranger', async () => {
  const server = await master('incarnation-2');
  expect(await ask(server.port, 'incarnation-1')).toBe('stranger');
});

test('whoever speaks another language on the port is a stranger', async () => {
  const http = await stranger(createHttp((_request, response) => response.end('hello')));
  expect(await ask(http)).toBe('stranger');
  const echo = await stranger(createServer((socket) => socket.pipe(socket)));
  expect(await ask(echo)).toBe('stranger');
  const http2 = await stranger(createHttp2((_request, response) => response.end('hello')) as unknown as Server);
  expect(await ask(http2)).toBe('stranger');
});

test('a process of ours that does not know the question is none that a standby has met', async () => {
  const server = await RpcServer.start({ host: '127.0.0.1', port: 0, log: silentLogger });
  closers.push(() => server.close());
  expect(await ask(server.port)).toBe('stranger');
});

test('silence and broken connections prove nothing', async () => {
  const impatient = new RpcLeaderProbe({ clock: new SystemClock(), deadlineMs: 50 });
  const silent = await stranger(createServer(() => undefined));
  expect(await ask(silent, undefined, impatient)).toBe('unclear');
  const rude = await stranger(createServer((socket) => socket.destroy()));
  expect(await ask(rude)).toBe('unclear');
  const address = { ...leaderAt(1), rpcAddress: 'no address' };
  expect((await probe.connect(address, () => undefined)).kind).toBe('unclear');
});

test('a control port that is not configured is taken from below the ephemeral range, whoever has some already', async () => {
  const servers = await Promise.all(['a', 'b', 'c'].map((one) => master(`incarnation-${one}`)));
  for (const { port } of servers) {
    expect(port).toBeGreaterThanOrEqual(CONTROL_PORTS.first);
    expect(port).toBeLessThanOrEqual(CONTROL_PORTS.last);
  }
  expect(CONTROL_PORTS.last).toBeLessThan(32_768);
  const tried = [...controlPorts(new SeededRandom(1))];
  expect(new Set(tried).size).toBe(tried.length);
  expect(Math.max(...tried)).toBeLessThanOrEqual(CONTROL_PORTS.last);
});
