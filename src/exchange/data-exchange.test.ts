import { connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { DataAddress } from '../contracts/task.ts';
import { SystemClock } from '../kernel/clock.ts';
import { UnavailableError } from '../kernel/errors.ts';
import { asAttemptId, asJobId, type DeploymentId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { DataExchange } from './data-exchange.ts';
import { DEFAULT_EXCHANGE_OPTIONS, type ExchangeOptions } from './exchange-options.ts';
import type { InputChannel, InputRequest } from './input-channel.ts';
import { rowCodec } from './row-codec.ts';
import type { Subpartition } from './subpartition.ts';
import { TcpTransport } from './tcp-transport.ts';

const clock = new SystemClock();
const JOB = asJobId('1'.repeat(32));
const ATTEMPT = asAttemptId('2'.repeat(32));
const DEPLOYMENT = '5-1' as DeploymentId;
const LOOPBACK: DataAddress = { host: '127.0.0.1', port: 0 };
const NEVER = new AbortController().signal;

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function exchange(overrides: Partial<ExchangeOptions> = {}): Promise<DataExchange> {
  const options = { ...DEFAULT_EXCHANGE_OPTIONS, ...overrides };
  const deps = { clock, log: silentLogger };
  const made = await DataExchange.start({ ...deps, transport: new TcpTransport(deps, options) }, options, LOOPBACK);
  cleanups.push(() => made.close());
  return made;
}

const request: InputRequest = {
  jobId: JOB,
  deployment: DEPLOYMENT,
  edgeId: 'edge',
  producerAttempt: ATTEMPT,
  producerSubtask: 3,
  subpartition: 0,
  consumer: 'Sink (1/1)',
};

function output(producer: DataExchange, subpartition = 0): Subpartition {
  producer.begin(JOB, DEPLOYMENT);
  return producer.createOutput(
    { jobId: JOB, deployment: DEPLOYMENT, attemptId: ATTEMPT, edgeId: 'edge', subpartition },
    { onFull: () => undefined, onAvailable: () => undefined },
  );
}

class Listener {
  failure: Error | undefined;
  onData(): void {
    // The tests poll.
  }
  onFailed(error: Error): void {
    this.failure = error;
  }
}

function batch(n: number) {
  const encoder = rowCodec.createEncoder();
  encoder.append(n);
  return { kind: 'records', codec: rowCodec.id, payload: encoder.finish(), records: 1 } as const;
}

function drain(channel: InputChannel): unknown[] {
  const seen: unknown[] = [];
  for (let message = channel.poll(); message !== undefined; message = channel.poll()) {
    seen.push(message.kind === 'records' ? rowCodec.createDecoder().decode(message.payload)[0] : message.kind);
    channel.processed();
  }
  return seen;
}

async function open(consumer: DataExchange, producer: DataExchange, listener = new Listener()): Promise<InputChannel> {
  return consumer.openInput(request, producer.address, listener, NEVER);
}

test('a fast producer and a stalled consumer hold no more than the queue and the credits', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  const subpartition = output(producer);
  const channel = await open(consumer, producer);
  const { credits, queuedMessages } = DEFAULT_EXCHANGE_OPTIONS;
  let sent = 0;
  const fill = () => {
    while (subpartition.available) subpartition.push(batch(sent++));
  };
  await until('the consumer to hold its credits', () => {
    fill();
    return channel.queued === credits && !subpartition.available;
  });
  // Nothing moves any more, however often the sockets are served.
  for (let i = 0; i < 100; i++) {
    await new Promise((resolve) => setImmediate(resolve));
    fill();
  }
  expect(sent).toBe(credits + queuedMessages);
  expect(channel.queued).toBe(credits);

  const seen: unknown[] = [];
  await until(
    'all to arrive',
    () => {
      if (sent < 1_000) fill();
      expect(channel.queued).toBeLessThanOrEqual(credits);
      seen.push(...drain(channel));
      return seen.length >= 1_000;
    },
    { everyMs: 1 },
  );
  expect(seen).toEqual(Array.from({ length: seen.length }, (_, i) => i));
});

test('a consumer that comes first waits for its producer, within the bound', async () => {
  const [producer, consumer] = [await exchange({ producerWaitMs: 100 }), await exchange()];
  const early = open(consumer, producer);
  output(producer).push(batch(1));
  const channel = await early;
  await until('the record', () => channel.queued === 1);
  expect(drain(channel)).toEqual([1]);
  const missing = consumer.openInput({ ...request, subpartition: 9 }, producer.address, new Listener(), NEVER);
  await expect(missing).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('did not appear'),
  });
});

test('an older deployment, another job and a second reader are refused', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  output(producer);
  const ask = (change: Partial<InputRequest>) =>
    consumer.openInput({ ...request, ...change }, producer.address, new Listener(), NEVER);
  await expect(ask({ deployment: '4-9' })).rejects.toMatchObject({ code: 'CONFLICT' });
  await expect(ask({ jobId: '9'.repeat(32) })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await ask({});
  await expect(ask({})).rejects.toMatchObject({ code: 'CONFLICT', message: expect.stringContaining('reader') });
});

test('a newer deployment refuses those who wait for an older one and ends their channels', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  output(producer);
  const listener = new Listener();
  await open(consumer, producer, listener);
  const waiting = consumer.openInput({ ...request, subpartition: 1 }, producer.address, new Listener(), NEVER);
  const refused = expect(waiting).rejects.toMatchObject({ code: 'CONFLICT' });
  await until('the wish to arrive', () => producer.waitingConsumers === 1);
  producer.begin(JOB, '6-1' as DeploymentId);
  await refused;
  await until('the channel to end', () => listener.failure);
  expect(listener.failure).toMatchObject({ code: 'UNAVAILABLE', message: expect.stringContaining('was replaced') });
});

test('a lost connection fails the consumer at once and names the peer', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  output(producer).push(batch(1));
  const sockets: Socket[] = [];
  const relay = createServer((near) => {
    const far = connect(producer.address.port, '127.0.0.1');
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.pipe(far);
    far.pipe(near);
    sockets.push(near, far);
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const { port } = relay.address() as { port: number };
  const address = { host: '127.0.0.1', port };
  const listener = new Listener();
  await consumer.openInput(request, address, listener, NEVER);
  const startedMs = performance.now();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => relay.close(resolve));
  const failure = await until('the failure', () => listener.failure, { everyMs: 1 });
  expect(performance.now() - startedMs).toBeLessThan(10_000);
  expect(failure).toMatchObject({ code: 'UNAVAILABLE', message: expect.stringContaining(`127.0.0.1:${port}`) });
  await expect(consumer.openInput(request, address, new Listener(), NEVER)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('ECONNREFUSED'),
  });
});

test('a producer that fails tells its consumer why; one that finished is read to its end', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  const failing = output(producer);
  const listener = new Listener();
  await open(consumer, producer, listener);
  failing.push(batch(1));
  failing.fail(new UnavailableError('Map (1/1) failed: no'));
  const failure = await until('the failure', () => listener.failure);
  expect(failure.message).toContain('producer subtask 3 of edge edge');
  expect(failure.message).toContain('Map (1/1) failed: no');

  const finished = output(producer, 1);
  for (const message of [batch(1), { kind: 'end-of-data' }, { kind: 'end-of-stream' }] as const) finished.push(message);
  const late = new Listener();
  const channel = await consumer.openInput({ ...request, subpartition: 1 }, producer.address, late, NEVER);
  const seen: unknown[] = [];
  await until('the end', () => {
    seen.push(...drain(channel));
    return seen.includes('end-of-stream') || late.failure !== undefined;
  });
  expect(seen).toEqual([1, 'end-of-data', 'end-of-stream']);
  await producer.close();
  expect(late.failure).toBeUndefined();
});

test('one connection carries all channels of a pair of slots, and ends when none is left', async () => {
  const [producer, consumer] = [await exchange(), await exchange({ idleConnectionMs: 40 })];
  output(producer);
  const first = await open(consumer, producer);
  output(producer, 1);
  const second = await consumer.openInput({ ...request, subpartition: 1 }, producer.address, new Listener(), NEVER);
  const connections = async () =>
    new Promise<number>((resolve) => {
      // biome-ignore lint/suspicious/noExplicitAny: the server is nobody's business but this test's
      (producer as any).server.server.getConnections((_error: unknown, count: number) => resolve(count));
    });
  expect(await connections()).toBe(1);
  first.close();
  second.close();
  await until('the connection to close', async () => (await connections()) === 0);
});

test('garbage, silence and oversized frames are closed and serve nobody', async () => {
  const producer = await exchange({ handshakeTimeoutMs: 60, idleConnectionMs: 60 });
  const closed = async (name: string, talk: (socket: Socket) => void) => {
    const socket = connect(producer.address.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.resume();
    await new Promise<void>((resolve) => {
      socket.once('connect', () => talk(socket));
      socket.once('close', () => resolve());
    });
    expect(socket.destroyed, name).toBe(true);
  };
  const hello = Buffer.from('4d52445800010000', 'hex');
  const hugeFrame = Buffer.concat([hello, Buffer.from([7, 0, 0, 0, 255, 255, 255, 127]), Buffer.alloc(12)]);
  await closed('HTTP', (socket) => socket.write('GET / HTTP/1.1\r\n\r\n'));
  await closed('silence', () => undefined);
  await closed('half a preamble', (socket) => socket.write(hello.subarray(0, 5)));
  await closed('another version', (socket) => socket.write(Buffer.from('4d52445800990000', 'hex')));
  await closed('a preamble and nothing else', (socket) => socket.write(hello));
  await closed('a frame over the limit', (socket) => socket.write(hugeFrame));
  await closed('a preamble and noise', (socket) => socket.write(Buffer.concat([hello, Buffer.alloc(64, 0x61)])));
  const consumer = await exchange();
  output(producer);
  await open(consumer, producer);
});

test('a server that is no slot, and one that never answers, are clear errors', async () => {
  const [consumer, impatient] = [await exchange({}), await exchange({ connectTimeoutMs: 80 })];
  const sockets: Socket[] = [];
  const stranger = async (talk: (socket: Socket) => void): Promise<DataExchange> => {
    const server = createServer((socket) => {
      sockets.push(socket);
      talk(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return { address: { host: '127.0.0.1', port: (server.address() as { port: number }).port } } as DataExchange;
  };
  const web = await stranger((socket) => void socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
  await expect(open(consumer, web)).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining('does not speak'),
  });
  const mute = await stranger(() => undefined);
  await expect(open(impatient, mute)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('no answer'),
  });
  const newer = await stranger((socket) => void socket.write(Buffer.from('4d52445800030000', 'hex')));
  await expect(open(consumer, newer)).rejects.toMatchObject({ code: 'UNSUPPORTED_VERSION' });
});

test('a consumer that stops waiting leaves nothing behind', async () => {
  const [producer, consumer] = [await exchange(), await exchange()];
  producer.begin(JOB, DEPLOYMENT);
  const stop = new AbortController();
  const waiting = consumer.openInput(request, producer.address, new Listener(), stop.signal);
  const ended = expect(waiting).rejects.toMatchObject({ code: 'CLOSED' });
  await until('the wish to arrive', () => producer.waitingConsumers === 1);
  stop.abort();
  await ended;
  await until('the wish to be forgotten', () => producer.waitingConsumers === 0);
  // The producer forgot the wish: whoever asks now is the first reader.
  output(producer);
  await open(consumer, producer);
});
