import { connect, createServer, type AddressInfo } from 'node:net';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { DataAddress } from '../contracts/task.ts';
import { SystemClock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import { asAttemptId, asJobId, type DeploymentId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { DataExchange } from './data-exchange.ts';
import { DEFAULT_EXCHANGE_OPTIONS } from './exchange-options.ts';
import { recordCodec } from './record-codecs.ts';
import { TcpTransport } from './tcp-transport.ts';

/** Cases; a hundredth of what other properties run in `npm run properties`, as each needs connections. */
const RUNS = Math.ceil(Number(process.env.MILLRACE_PROPERTY_RUNS ?? 6_000) / 100);
const LONG_RUN_MS = 6 * 3_600_000;

const clock = new SystemClock();
const JOB = asJobId('1'.repeat(32));
const ATTEMPT = asAttemptId('2'.repeat(32));
const DEPLOYMENT = '5-1' as DeploymentId;
const BATCHES = 12;
const codec = recordCodec('columnar');

type Damage =
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'drop'; readonly at: number; readonly bytes: number }
  | { readonly kind: 'repeat'; readonly at: number; readonly bytes: number }
  | { readonly kind: 'cut'; readonly at: number };

/** About what the stream below takes; later positions leave it whole. */
const STREAM_BYTES = 3_400;
const at = fc.nat(STREAM_BYTES);
const damages: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('drop' as const), at, bytes: fc.integer({ min: 1, max: 200 }) }),
  fc.record({ kind: fc.constant('repeat' as const), at, bytes: fc.integer({ min: 1, max: 200 }) }),
  fc.record({ kind: fc.constant('cut' as const), at }),
);

/** Applies the damage to the bytes from `from` on; undefined: the stream ends here. */
function spoil(chunk: Buffer, from: number, damage: Damage): { readonly bytes: Buffer; readonly ends: boolean } {
  const local = damage.at - from;
  if (local < 0 || local >= chunk.length) return { bytes: chunk, ends: false };
  switch (damage.kind) {
    case 'flip': {
      const bytes = Buffer.from(chunk);
      bytes[local] = (bytes[local] as number) ^ (1 << damage.bit);
      return { bytes, ends: false };
    }
    case 'drop':
      return { bytes: Buffer.concat([chunk.subarray(0, local), chunk.subarray(local + damage.bytes)]), ends: false };
    case 'repeat':
      return { bytes: Buffer.concat([chunk.subarray(0, local + damage.bytes), chunk.subarray(local)]), ends: false };
    case 'cut':
      return { bytes: chunk.subarray(0, local), ends: true };
  }
}

/** A network that damages what the producer sends, once. */
async function damagingProxy(target: DataAddress, damage: Damage) {
  const server = createServer((consumer) => {
    const producer = connect(target);
    let passed = 0;
    consumer.on('data', (chunk) => void producer.write(chunk));
    producer.on('data', (chunk) => {
      const { bytes, ends } = spoil(chunk, passed, damage);
      passed += chunk.length;
      consumer.write(bytes);
      if (ends) consumer.end();
    });
    for (const socket of [consumer, producer]) socket.on('error', () => undefined);
    consumer.on('close', () => producer.destroy());
    producer.on('close', () => consumer.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

function records(batch: number): readonly unknown[] {
  return Array.from({ length: 20 }, (_, i) => ({ word: `w${batch}`, count: batch * 100 + i }));
}

test(
  'whatever happens to the bytes of a connection, the consumer gets true batches in order and then the end or an error',
  async () => {
    const options = { ...DEFAULT_EXCHANGE_OPTIONS, handshakeTimeoutMs: 20_000, idleConnectionMs: 100 };
    const deps = { clock, log: silentLogger };
    const start = () =>
      DataExchange.start({ ...deps, transport: new TcpTransport(deps, options) }, options, {
        host: '127.0.0.1',
        port: 0,
      });
    await using producer = await start();
    await using consumer = await start();
    producer.begin(JOB, DEPLOYMENT);
    let edge = 0;
    let failures = 0;
    await fc.assert(
      fc.asyncProperty(damages, async (damage) => {
        const edgeId = `edge-${edge++}`;
        const output = producer.createOutput(
          { jobId: JOB, deployment: DEPLOYMENT, attemptId: ATTEMPT, edgeId, subpartition: 0 },
          { onFull: () => undefined, onAvailable: () => undefined },
        );
        const encoder = codec.createEncoder();
        for (let batch = 0; batch < BATCHES; batch++) {
          for (const record of records(batch)) encoder.append(record);
          output.push({ kind: 'records', codec: codec.id, payload: encoder.finish(), records: 20 });
        }
        output.push({ kind: 'end-of-stream' });
        const proxy = await damagingProxy(producer.address, damage);
        let failure: Error | undefined;
        const seen: (readonly unknown[])[] = [];
        let ended = false;
        const listener = {
          onData: () => undefined,
          onFailed: (error: Error) => {
            failure = error;
          },
        };
        const request = {
          jobId: JOB,
          deployment: DEPLOYMENT,
          edgeId,
          producerAttempt: ATTEMPT,
          producerSubtask: 0,
          subpartition: 0,
          consumer: 'Sink (1/1)',
        };
        try {
          const signal = new AbortController().signal;
          const channel = await consumer.openInput(request, proxy.address, listener, signal);
          await until(
            `the end of a stream with ${JSON.stringify(damage)}`,
            () => {
              for (let message = channel.poll(); message !== undefined; message = channel.poll()) {
                if (message.kind === 'records') seen.push(codec.createDecoder().decode(message.payload));
                else ended = message.kind === 'end-of-stream';
                channel.processed();
              }
              return ended || failure !== undefined;
            },
            { everyMs: 1, timeoutMs: 30_000 },
          );
          channel.close();
        } catch (error) {
          if (!(error instanceof MillraceError)) throw error;
          failure = error;
        } finally {
          await proxy.close();
        }
        expect(seen).toEqual(Array.from({ length: seen.length }, (_, batch) => records(batch)));
        if (failure === undefined) expect(seen).toHaveLength(BATCHES);
        else {
          failures++;
          expect(['CORRUPT', 'UNAVAILABLE', 'UNSUPPORTED_VERSION']).toContain((failure as MillraceError).code);
        }
      }),
      { numRuns: RUNS, seed: 20 },
    );
    expect(failures).toBeGreaterThan(RUNS / 2);
  },
  LONG_RUN_MS,
);
