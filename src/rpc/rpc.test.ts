import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { createServer, type Server as TcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { type GatewayHandler, isConnectionRefused, method } from '../contracts/gateway.ts';
import { SystemClock } from '../kernel/clock.ts';
import { FencedError, MillraceError } from '../kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { releasePorts, reservePort } from '../../test-support/free-ports.ts';
import { until } from '../../test-support/until.ts';
import { decodeAnswer } from './envelope.ts';
import { encodePayload } from './payload-codec.ts';
import { connectGateway } from './connect-gateway.ts';
import { localGateway } from './local-gateway.ts';
import { RpcServer } from './rpc-server.ts';
import { echoSpec } from './testing/echo-spec.ts';

const TOKEN = asFencingToken(42n);
const clock = new SystemClock();
const log = silentLogger;
const opened: { close(): Promise<void> }[] = [];
const children: ChildProcess[] = [];

function keep<T extends { close(): Promise<void> }>(thing: T): T {
  opened.push(thing);
  return thing;
}

afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

const handler: GatewayHandler<typeof echoSpec> = {
  echo: async (request) => request,
  token: async (_request, token) => ({ token }),
  hang: () => new Promise(() => {}),
  hangReading: () => new Promise(() => {}),
  fail: async ({ kind }) => {
    if (kind === 'fenced') throw new FencedError('token 3 is older than 9', { hint: 'Stop.' });
    if (kind === 'wrong-answer') return { done: 'yes' } as never;
    throw new Error('disk on fire', { cause: new Error('password=hunter2') });
  },
};

async function serve(limits?: { payloadBytesMax?: number; drainMs?: number }): Promise<RpcServer> {
  const server = keep(await RpcServer.start({ host: '127.0.0.1', port: 0, log, ...(limits ? { limits } : {}) }));
  server.serve('echo', echoSpec, handler);
  return server;
}

function connect(port: number, options: { token?: FencingToken; payloadBytesMax?: number } = {}) {
  return keep(connectGateway(echoSpec, 'echo', `127.0.0.1:${port}`, { token: TOKEN, clock, log, ...options }));
}

const rejection = async (promise: Promise<unknown>): Promise<MillraceError> => {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MillraceError);
  return error as MillraceError;
};

test('a call brings its request there and its response back, whatever values they hold', async () => {
  const gateway = connect((await serve()).port);
  const value = {
    big: 2n ** 80n,
    small: -7n,
    bytes: new Uint8Array([0, 255, 7]),
    map: new Map<unknown, unknown>([[1, { a: [1, 2] }]]),
    set: new Set(['x']),
    nothing: undefined,
    nan: Number.NaN,
    date: new Date(5),
    text: 'Grüße 🌊',
    rows: [{ a: 1 }, { a: 2 }, { b: 3 }],
  };
  expect(await gateway.echo({ value })).toEqual({ value });
});

test('the fencing token travels with every call', async () => {
  const { port } = await serve();
  const token = asFencingToken(2n ** 70n);
  expect(await connect(port, { token }).token({})).toEqual({ token });
  expect(await connect(port).token({})).toEqual({ token: TOKEN });
});

test('a request that does not fit its schema is refused on both sides with the path of what is wrong', async () => {
  const { port } = await serve();
  const wrong = { items: [{ name: 'a' }, { name: 7 }] } as never;
  const local = await rejection(connect(port).echo(wrong));
  expect(local.code).toBe('INVALID_ARGUMENT');
  expect(local.message).toContain('items[1].name');
  // A peer of another version does not check as we do: the server checks for itself.
  const loose = { echo: method(z.unknown(), z.unknown(), 1_000) };
  const careless = keep(connectGateway(loose, 'echo', `127.0.0.1:${port}`, { token: TOKEN, clock, log }));
  const remote = await rejection(careless.echo(wrong));
  expect(remote.code).toBe('INVALID_ARGUMENT');
  expect(remote.message).toContain('items[1].name');
});

test('typed errors arrive as what they were; unexpected ones bring neither stack nor causes', async () => {
  const gateway = connect((await serve()).port);
  const fenced = await rejection(gateway.fail({ kind: 'fenced' }));
  expect(fenced).toBeInstanceOf(FencedError);
  expect(fenced).toMatchObject({ code: 'FENCED', message: 'token 3 is older than 9', hint: 'Stop.' });
  const other = await rejection(gateway.fail({ kind: 'other' }));
  expect(other).toMatchObject({ code: 'INTERNAL', message: 'unexpected failure: disk on fire' });
  expect(`${other.stack} ${String(other.cause)}`).not.toContain('hunter2');
  expect(await rejection(gateway.fail({ kind: 'wrong-answer' }))).toMatchObject({ code: 'INTERNAL' });
});

test('a refused connection is UNAVAILABLE at once and says that it was refused', async () => {
  const port = await reservePort();
  const startedMs = clock.nowMs();
  const gateway = connect(port);
  for (let i = 0; i < 3; i++) {
    const error = await rejection(gateway.echo({}));
    expect(error.code).toBe('UNAVAILABLE');
    expect(isConnectionRefused(error)).toBe(true);
  }
  expect(clock.nowMs() - startedMs).toBeLessThan(10_000);
  // Back within the short back-off once somebody listens there.
  const server = keep(await RpcServer.start({ host: '127.0.0.1', port, log }));
  server.serve('echo', echoSpec, handler);
  await until('the gateway reconnects', () => gateway.echo({}), { timeoutMs: 30_000 });
  releasePorts([port]);
});

test('a deadline that passes leaves the outcome unknown, or is a plain timeout when nothing can have changed', async () => {
  const gateway = connect((await serve({ drainMs: 10 })).port);
  const startedMs = clock.nowMs();
  expect((await rejection(gateway.hang({}))).code).toBe('UNKNOWN_OUTCOME');
  expect((await rejection(gateway.hangReading({}))).code).toBe('TIMEOUT');
  expect(clock.nowMs() - startedMs).toBeLessThan(10_000);
});

test('a peer that accepts connections and says nothing costs one deadline, and nothing was sent', async () => {
  const silent: TcpServer = createServer(() => {});
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as { port: number };
  const error = await rejection(connect(port).hang({}));
  expect(error.code).toBe('UNAVAILABLE');
  expect(isConnectionRefused(error)).toBe(false);
  silent.close();
});

test('calls that waited for a connect that was given up have changed nothing, and say so at once', async () => {
  const silent: TcpServer = createServer(() => {});
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const gateway = connect((silent.address() as { port: number }).port);
  const waiting = rejection(gateway.fail({ kind: 'other' }));
  expect((await rejection(gateway.hang({}))).code).toBe('UNAVAILABLE');
  const error = await waiting;
  expect(error.code).toBe('UNAVAILABLE');
  expect(error.message).not.toContain('was not answered within');
  silent.close();
});

test('payloads over the limit are refused before they are sent, and by the receiver', async () => {
  const { port } = await serve({ payloadBytesMax: 100_000 });
  const value = new Uint8Array(200_000);
  expect((await rejection(connect(port, { payloadBytesMax: 100_000 }).echo({ value }))).code).toBe('TOO_LARGE');
  expect((await rejection(connect(port).echo({ value }))).code).toBe('TOO_LARGE');
  expect(await connect(port).echo({ value: 1 })).toEqual({ value: 1 });
});

test('a payload of many megabytes passes', async () => {
  const gateway = connect((await serve()).port);
  const value = new Uint8Array(20_000_000).fill(7);
  const answer = await gateway.echo({ value });
  expect(Buffer.compare(answer.value as Uint8Array, value)).toBe(0);
});

test('what is not offered (yet, or any more) is UNAVAILABLE; a replaced handler is the one that answers', async () => {
  const server = keep(await RpcServer.start({ host: '127.0.0.1', port: 0, log }));
  const gateway = connect(server.port);
  expect((await rejection(gateway.echo({}))).code).toBe('UNAVAILABLE');
  const withdrawFirst = server.serve('echo', echoSpec, handler);
  const withdrawSecond = server.serve('echo', echoSpec, {
    ...handler,
    token: async () => ({ token: asFencingToken(1n) }),
  });
  withdrawFirst();
  expect(await gateway.token({})).toEqual({ token: 1n });
  withdrawSecond();
  expect((await rejection(gateway.token({}))).code).toBe('UNAVAILABLE');
});

test('closing a gateway ends its calls with CLOSED', async () => {
  const gateway = connect((await serve({ drainMs: 10 })).port);
  await gateway.echo({});
  const hanging = rejection(gateway.hang({}));
  await gateway.close();
  expect((await hanging).code).toBe('CLOSED');
  expect((await rejection(gateway.echo({}))).code).toBe('CLOSED');
});

test('binding a taken port is a configuration error, and nothing but that is said', async () => {
  const { port } = await serve();
  const said = vi.spyOn(console, 'error');
  const error = await rejection(RpcServer.start({ host: '127.0.0.1', port, log }));
  expect(error.code).toBe('CONFIGURATION');
  expect(said).not.toHaveBeenCalled();
  said.mockRestore();
});

test('a caller of a newer protocol is refused with a clear word, one that names none is taken for the first', async () => {
  const server = await serve();
  const call = (version: string | undefined) =>
    new Promise<unknown>((resolve, reject) => {
      const session = connectHttp2(`http://127.0.0.1:${server.port}`);
      session.on('error', reject);
      const stream = session.request({
        ':method': 'POST',
        ':path': '/millrace.echo/token',
        'content-type': 'application/grpc',
        te: 'trailers',
        'millrace-token': '7',
        ...(version === undefined ? {} : { 'millrace-rpc': version }),
      });
      const parts: Buffer[] = [];
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('end', () => {
        session.close();
        resolve(decodeAnswer(Buffer.concat(parts).subarray(5), 'answer'));
      });
      const payload = encodePayload({}, 'request');
      stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, payload.length]), payload]));
    });
  expect(await call('2')).toMatchObject({
    error: { code: 'UNSUPPORTED_VERSION', hint: expect.stringContaining('upgrade') },
  });
  expect(await call('nonsense')).toMatchObject({ error: { code: 'INVALID_ARGUMENT' } });
  for (const version of ['1', undefined]) expect(await call(version)).toMatchObject({ value: { token: 7n } });
});

test('an address that is none is refused', () => {
  for (const address of ['', 'x', 'unix:/tmp/s', 'dns:///a:1', 'a:0', 'a:70000', 'http://a:1', '[::1', 'a b:1'])
    expect(() => connectGateway(echoSpec, 'echo', address, { token: TOKEN, clock, log }), address).toThrow(/address/);
});

test('in process the same holds: copies, schemas, rebuilt errors, deadlines', async () => {
  const seen: unknown[] = [];
  const gateway = localGateway(
    echoSpec,
    {
      ...handler,
      echo: async (request) => {
        seen.push(request.value);
        return request;
      },
    },
    { token: TOKEN, clock },
  );
  const value = { a: [1] };
  const answer = await gateway.echo({ value });
  expect(answer).toEqual({ value });
  expect(seen[0]).not.toBe(value);
  expect(answer.value).not.toBe(seen[0]);
  expect(await gateway.token({})).toEqual({ token: TOKEN });
  expect((await rejection(gateway.echo({ items: 3 } as never))).code).toBe('INVALID_ARGUMENT');
  expect((await rejection(gateway.fail({ kind: 'fenced' }))).code).toBe('FENCED');
  expect((await rejection(gateway.hang({}))).code).toBe('UNKNOWN_OUTCOME');
  await gateway.close();
  expect((await rejection(gateway.echo({}))).code).toBe('CLOSED');
});

/** A server in a process of its own, so that it can be killed as a process is. */
let folder: string;
let serverScript: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-rpc-'));
  serverScript = join(folder, 'echo-server.mjs');
  await build({
    entryPoints: [new URL('./testing/echo-server.ts', import.meta.url).pathname],
    bundle: true,
    platform: 'node',
    format: 'esm',
    banner: {
      js: "import { createRequire as requireFor } from 'node:module'; const require = requireFor(import.meta.url);",
    },
    outfile: serverScript,
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function forkServer(port = 0): Promise<{ child: ChildProcess; port: number }> {
  const child = fork(serverScript, [String(port)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  children.push(child);
  const [message] = await once(child, 'message');
  return { child, port: (message as { port: number }).port };
}

test('a server killed in the middle of a call: unknown outcome at once, and the connection is reported lost', async () => {
  const { child, port } = await forkServer();
  const gateway = connect(port);
  const lost: string[] = [];
  gateway.onConnectionLost((reason) => lost.push(reason));
  await gateway.echo({});
  const mutation = rejection(gateway.hang({}));
  const reading = rejection(gateway.hangReading({}));
  await until('both calls arrived', async () => ((await gateway.echo({ value: 'pending' })).value as number) === 2);
  const killedMs = clock.nowMs();
  child.kill('SIGKILL');
  expect((await mutation).code).toBe('UNKNOWN_OUTCOME');
  expect((await reading).code).toBe('UNAVAILABLE');
  await until('told of the loss', () => lost.length === 1);
  expect(clock.nowMs() - killedMs).toBeLessThan(5_000);
  // The first attempts may still meet the dying process.
  await until('connects are refused', async () => isConnectionRefused(await rejection(gateway.echo({}))));
  // A new process on the same port is found by the same gateway.
  await forkServer(port);
  await until('connected again', () => gateway.echo({}), { timeoutMs: 30_000 });
});
