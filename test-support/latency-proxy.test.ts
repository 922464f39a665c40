import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { LatencyProxy } from './latency-proxy.ts';
import { until } from './until.ts';

const echo = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => undefined); // Resets are what some tests are about.
  socket.pipe(socket);
});
let targetPort = 0;

beforeAll(async () => {
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  targetPort = (echo.address() as AddressInfo).port;
});
afterAll(() => {
  echo.close();
});

async function client(proxy: LatencyProxy): Promise<{ socket: Socket; received: () => string; closed: () => boolean }> {
  const socket = connect(proxy.port, '127.0.0.1');
  let received = '';
  let closed = false;
  socket.on('data', (bytes: Buffer) => {
    received += bytes.toString('latin1');
  });
  socket.on('error', () => undefined); // Seen as `closed`.
  socket.on('close', () => {
    closed = true;
  });
  await once(socket, 'connect');
  return { socket, received: () => received, closed: () => closed };
}

test('bytes arrive whole, in order, and not before their time', async () => {
  await using proxy = await LatencyProxy.start({ targetPort, delayMs: 20 });
  const { socket, received } = await client(proxy);
  const sentMs = performance.now();
  const text = Array.from({ length: 200_000 }, (_, i) => String(i % 10)).join('');
  socket.write(text.slice(0, 7));
  socket.write(text.slice(7));
  await until('the echo to begin', () => received().length > 0, { everyMs: 1 });
  expect(performance.now() - sentMs).toBeGreaterThanOrEqual(39);
  await until('all of it', () => received().length === text.length);
  expect(received() === text).toBe(true);
  socket.end();
  await once(socket, 'close');
});

test('more than fits in flight is held back and still arrives', async () => {
  await using proxy = await LatencyProxy.start({ targetPort, delayMs: 5 });
  const { socket, received } = await client(proxy);
  socket.end(Buffer.alloc(5 << 20, 'x'));
  await until('five MiB', () => received().length === 5 << 20);
});

test('stalled, nothing passes and nobody is told; then all of it does', async () => {
  await using proxy = await LatencyProxy.start({ targetPort });
  const { socket, received, closed } = await client(proxy);
  socket.write('before ');
  await until('the first echo', () => received() === 'before ');
  proxy.mode = 'stall';
  socket.write('after');
  const probe = await client(proxy); // Connecting still works: the cable is cut behind the switch.
  probe.socket.write('lost?');
  await until('the bytes to reach the proxy', () => socket.bytesWritten === 'before after'.length);
  expect({ received: received(), probed: probe.received(), closed: closed() }).toEqual({
    received: 'before ',
    probed: '',
    closed: false,
  });
  proxy.mode = 'forward';
  await until('the rest', () => received() === 'before after' && probe.received() === 'lost?');
  socket.destroy();
  probe.socket.destroy();
});

test('refusing, open connections are reset and new ones end at once', async () => {
  await using proxy = await LatencyProxy.start({ targetPort });
  const { socket, closed, received } = await client(proxy);
  socket.write('x');
  await until('the echo', () => received() === 'x');
  proxy.mode = 'refuse';
  await until('the reset', closed);
  const late = connect(proxy.port, '127.0.0.1');
  late.on('error', () => undefined); // ECONNRESET, usually; the close is what counts.
  await new Promise((resolve) => late.once('close', resolve));
});

test('a tap sees requests before they are forwarded; it holds back answers, or swallows everything from there on', async () => {
  const seen: string[] = [];
  await using proxy = await LatencyProxy.start({
    targetPort,
    tap: (bytes) => {
      const text = bytes.toString();
      seen.push(text);
      return text === 'hold' ? 'hold answers' : text === 'swallow' ? 'swallow' : 'pass';
    },
  });
  const held = await client(proxy);
  held.socket.write('pass');
  await until('the echo', () => held.received() === 'pass');
  held.socket.write('hold');
  const swallowed = await client(proxy);
  swallowed.socket.write('swallow');
  const passing = await client(proxy);
  passing.socket.write('other');
  await until('the others to be served', () => passing.received() === 'other');
  await until('all to be seen', () => seen.length === 4);
  expect(held.received()).toBe('pass');
  expect(swallowed.received()).toBe('');
  for (const { socket } of [held, swallowed, passing]) socket.destroy();
});

test('a lost packet delays what is behind it, and nothing is lost for good', async () => {
  await using proxy = await LatencyProxy.start({ targetPort });
  proxy.lossRate = 1;
  proxy.lossDelayMs = 30;
  const { socket, received } = await client(proxy);
  const sentMs = performance.now();
  socket.write('a');
  await until('the echo', () => received() === 'a', { everyMs: 1 });
  expect(performance.now() - sentMs).toBeGreaterThanOrEqual(59);
  socket.destroy();
});
