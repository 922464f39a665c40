import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { DataAddress } from '../contracts/task.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asAttemptId, asJobId, type DeploymentId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import type { ChannelMessage } from './channel-message.ts';
import { DataExchange } from './data-exchange.ts';
import { DEFAULT_EXCHANGE_OPTIONS, type ExchangeOptions } from './exchange-options.ts';
import type { InputChannel } from './input-channel.ts';
import { recordCodec } from './record-codecs.ts';
import type { Subpartition } from './subpartition.ts';
import type { Transport } from './wire.ts';

const clock = new SystemClock();
const codec = recordCodec('columnar');
const JOB = asJobId('1'.repeat(32));
const ATTEMPT = asAttemptId('2'.repeat(32));
const DEPLOYMENT = '5-1' as DeploymentId;
const LOOPBACK: DataAddress = { host: '127.0.0.1', port: 0 };

export type CreateTransport = (options: ExchangeOptions) => Transport;

/** What every transport does alike, seen through two exchanges of two slots. */
export function transportContract(createTransport: CreateTransport): void {
  const cleanups: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function exchange(): Promise<DataExchange> {
    const options = { ...DEFAULT_EXCHANGE_OPTIONS, idleConnectionMs: 500 };
    const deps = { clock, log: silentLogger, transport: createTransport(options) };
    const made = await DataExchange.start(deps, options, LOOPBACK);
    cleanups.push(() => made.close());
    return made;
  }

  test('batches of any size arrive as they were sent, in order, and then the end', async () => {
    const [producer, consumer] = [await exchange(), await exchange()];
    const output = createOutput(producer);
    const { channel } = await open(consumer, producer);
    const sizes = [0, 1, 100, 70_000, 3, 2_000_000, 1];
    const waiting: ChannelMessage[] = sizes.map((size, i) => batchOf([{ i, text: 'x'.repeat(size) }, size]));
    waiting.push({ kind: 'watermark', timestampMs: Number.NaN }, { kind: 'end-of-data' }, { kind: 'end-of-stream' });
    const seen: unknown[] = [];
    await until(
      'the end',
      () => {
        while (output.available && waiting.length > 0) output.push(waiting.shift() as ChannelMessage);
        seen.push(...drain(channel));
        return seen.at(-1) === 'end-of-stream';
      },
      { everyMs: 1, timeoutMs: 30_000 },
    );
    const records = sizes.flatMap((size, i) => [{ i, text: 'x'.repeat(size) }, size]);
    expect(seen).toEqual([...records, 'watermark', 'end-of-data', 'end-of-stream']);
  });

  test('a stalled consumer holds its credits, the producer its queue, and nobody more', async () => {
    const [producer, consumer] = [await exchange(), await exchange()];
    const output = createOutput(producer);
    const { channel } = await open(consumer, producer);
    let sent = 0;
    const { credits, queuedMessages } = DEFAULT_EXCHANGE_OPTIONS;
    await until(
      'the channel to be full',
      () => {
        while (output.available) output.push(batchOf([sent++]));
        return channel.queued === credits && !output.available;
      },
      { everyMs: 1 },
    );
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(channel.queued).toBe(credits);
    expect(sent).toBe(credits + queuedMessages);
  });

  test('a payload that several consumers share reaches each of them', async () => {
    const [producer, one, other] = [await exchange(), await exchange(), await exchange()];
    const outputs = [createOutput(producer, 0), createOutput(producer, 1)];
    const channels = [await open(one, producer, { subpartition: 0 }), await open(other, producer, { subpartition: 1 })];
    const message = { ...batchOf(['to', 'all']), shared: true } as const;
    for (const output of outputs) output.push(message);
    for (const { channel } of channels) {
      await until('the batch', () => channel.queued > 0);
      expect(drain(channel)).toEqual(['to', 'all']);
    }
  });

  test('a producer that fails says why; one whose slot is gone is lost', async () => {
    const [producer, consumer] = [await exchange(), await exchange()];
    const outputs = [createOutput(producer, 0), createOutput(producer, 1)];
    const failing = await open(consumer, producer, { subpartition: 0 });
    const going = await open(consumer, producer, { subpartition: 1 });
    outputs[0]?.fail(new Error('the disk is full'));
    await until('the reason', () => failing.failures.length > 0);
    expect(failing.failures[0]?.message).toContain('the disk is full');
    expect(going.failures).toEqual([]);
    await producer.close();
    await until('the loss', () => going.failures.length > 0);
    expect(going.failures[0]).toMatchObject({ code: 'UNAVAILABLE' });
    expect(going.failures).toHaveLength(1);
  });

  test('a consumer that goes away leaves its producer stopped at its bound, and others served', async () => {
    const [producer, consumer] = [await exchange(), await exchange()];
    const outputs = [createOutput(producer, 0), createOutput(producer, 1)] as const;
    const leaving = await open(consumer, producer, { subpartition: 0 });
    const staying = await open(consumer, producer, { subpartition: 1 });
    leaving.channel.close();
    await until(
      'the output to be full',
      () => {
        if (outputs[0].available) outputs[0].push(batchOf([1]));
        return !outputs[0].available;
      },
      { everyMs: 1 },
    );
    outputs[1].push(batchOf(['still here']));
    await until('the other channel', () => staying.channel.queued > 0);
    expect(drain(staying.channel)).toEqual(['still here']);
  });

  test('an address where no slot is, is an error and no hang', async () => {
    const [gone, consumer] = [await exchange(), await exchange()];
    const address = gone.address;
    await gone.close();
    await expect(open(consumer, { address })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
}

function createOutput(producer: DataExchange, subpartition = 0): Subpartition {
  producer.begin(JOB, DEPLOYMENT);
  return producer.createOutput(
    { jobId: JOB, deployment: DEPLOYMENT, attemptId: ATTEMPT, edgeId: 'edge', subpartition },
    { onFull: () => undefined, onAvailable: () => undefined },
  );
}

async function open(
  consumer: DataExchange,
  producer: { readonly address: DataAddress },
  { subpartition = 0 }: { readonly subpartition?: number } = {},
): Promise<{ readonly channel: InputChannel; readonly failures: readonly Error[] }> {
  const failures: Error[] = [];
  const channel = await consumer.openInput(
    {
      jobId: JOB,
      deployment: DEPLOYMENT,
      edgeId: 'edge',
      producerAttempt: ATTEMPT,
      producerSubtask: 0,
      subpartition,
      consumer: 'Sink (1/1)',
    },
    producer.address,
    { onData: () => undefined, onFailed: (error) => void failures.push(error) },
    new AbortController().signal,
  );
  return { channel, failures };
}

function batchOf(records: readonly unknown[]) {
  const encoder = codec.createEncoder();
  for (const record of records) encoder.append(record);
  return { kind: 'records', codec: codec.id, payload: encoder.finish(), records: records.length } as const;
}

function drain(channel: InputChannel): unknown[] {
  const seen: unknown[] = [];
  for (let message = channel.poll(); message !== undefined; message = channel.poll()) {
    if (message.kind === 'records') seen.push(...codec.createDecoder().decode(message.payload));
    else seen.push(message.kind);
    channel.processed();
  }
  return seen;
}
