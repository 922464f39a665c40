import { describe, expect, test } from 'vitest';
import { MemoryMultipartStore } from '../../ha/objects/memory-multipart-store.ts';
import type { TwoPhaseCommitWriter } from '../api/sink.ts';
import type { PreCommitted } from '../api/two-phase-commit.ts';
import { UnavailableError } from '../kernel/errors.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import type { S3Committable } from './s3-part.ts';
import { type S3SinkOptions, s3Sink } from './s3-sink.ts';
import { readerContext } from './testing/run-reader.ts';
import { checkHistories } from './testing/two-phase-histories.ts';

type Prepared = PreCommitted<S3Committable>;
type Writer = TwoPhaseCommitWriter<unknown, Prepared>;

function writerOf(
  bucket: MemoryMultipartStore,
  { subtask = 0, parallelism = 1, deployment = '5-1', jobId = 'a'.repeat(32) } = {},
  options: S3SinkOptions<unknown> = {},
  signal?: AbortSignal,
): Writer {
  const provider = { log: silentLogger, open: async () => new MemoryMultipartStore(bucket) };
  const context = readerContext({ subtaskIndex: subtask, parallelism, jobId });
  return s3Sink<unknown>('s3://bucket/out', { provider, ...options }).createWriter({
    ...context,
    deployment,
    ...(signal === undefined ? {} : { signal }),
  });
}

async function visible(bucket: MemoryMultipartStore): Promise<string[]> {
  return [...bucket.objects.values()].flatMap((bytes) => bytes.toString().split('\n').slice(0, -1)).sort();
}

async function unfinished(bucket: MemoryMultipartStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of bucket.list('')) keys.push(key);
  return keys;
}

const requestOf = (checkpointId: number, deployment = '5-1') => ({ deployment, checkpointId });

async function opened(
  bucket: MemoryMultipartStore,
  ...rest: Parameters<typeof writerOf> extends [unknown, ...infer R] ? R : never
) {
  const writer = writerOf(bucket, ...rest);
  await writer.open([]);
  return writer;
}

test('rows become visible with the commit, whole, and not before', async () => {
  const bucket = new MemoryMultipartStore();
  const writer = await opened(bucket);
  writer.write('one');
  writer.write({ two: 2 });
  const preparing = writer.prepareCommit(1);
  writer.write('three');
  const first = await preparing;
  expect(await visible(bucket)).toEqual([]);
  expect(first).toMatchObject([{ deployment: '5-1', checkpointId: 1, committable: { bucket: 'bucket', bytes: 14 } }]);
  expect(JSON.parse(JSON.stringify(first))).toEqual(first);
  await writer.commit(first, requestOf(1));
  expect(await visible(bucket)).toEqual(['one', '{"two":2}']);
  await writer.commit(await writer.prepareCommit(2), requestOf(2));
  expect(await visible(bucket)).toEqual(['one', 'three', '{"two":2}']);
  expect(await writer.prepareCommit(3)).toEqual([]);
  await writer.close();
  expect(await unfinished(bucket)).toEqual([]);
  expect([...bucket.objects.keys()][0]).toMatch(/^out\/part-0-5-1-a{32}-[0-9a-f]{12}-0$/);
});

test('parts go out as rows come, and a slow store holds the writer back', async () => {
  const bucket = new MemoryMultipartStore();
  const writer = await opened(bucket);
  const row = 'x'.repeat(99_999);
  let waits = 0;
  for (let i = 0; i < 300; i++) {
    writer.write(row);
    const ready = writer.ready();
    if (ready !== undefined) {
      waits++;
      await ready;
    }
  }
  expect(waits).toBeGreaterThan(0);
  expect((await unfinished(bucket)).length).toBe(1);
  const committables = await writer.prepareCommit(1);
  expect(committables[0]?.committable).toMatchObject({ bytes: 30_000_000 });
  expect(committables[0]?.committable.parts.length).toBeGreaterThanOrEqual(5);
  await writer.commit(committables, requestOf(1));
  expect((await visible(bucket)).length).toBe(300);
});

test('an object that is large enough is followed by another, and one commit makes all of them visible', async () => {
  const bucket = new MemoryMultipartStore();
  const writer = await opened(bucket, {}, { maxObjectBytes: 20, partPrefix: 'words', partSuffix: '.txt' });
  for (let i = 0; i < 10; i++) writer.write(`row ${i}`);
  const committables = await writer.prepareCommit(1);
  expect(committables.length).toBe(3);
  await writer.commit(committables, requestOf(1));
  expect((await visible(bucket)).length).toBe(10);
  expect([...bucket.objects.keys()].every((key) => /^out\/words-.*\.txt$/.test(key))).toBe(true);
});

describe('a commit', () => {
  async function prepared(
    bucket: MemoryMultipartStore,
  ): Promise<{ writer: Writer; committables: readonly Prepared[] }> {
    const writer = await opened(bucket);
    writer.write('row');
    return { writer, committables: await writer.prepareCommit(1) };
  }

  test('whose answer is lost is repeated without harm', async () => {
    const bucket = new MemoryMultipartStore();
    let lost = 0;
    const provider = {
      log: silentLogger,
      open: async () => {
        const client = new MemoryMultipartStore(bucket);
        client.intercept = (call, when) => {
          if (call === 'complete' && when === 'after' && lost++ === 0) throw new UnavailableError('no answer');
        };
        return client;
      },
    };
    const writer = await opened(bucket, {}, { provider });
    writer.write('row');
    const committables = await writer.prepareCommit(1);
    await expect(writer.commit(committables, requestOf(1))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await writer.commit(committables, requestOf(1));
    await writer.commit(committables, requestOf(1));
    expect(await visible(bucket)).toEqual(['row']);
  });

  test('is done by the next attempt when the first died before it, and raced by the first it happens once', async () => {
    const bucket = new MemoryMultipartStore();
    const { writer, committables } = await prepared(bucket);
    const next = writerOf(bucket, { deployment: '6-1' });
    await Promise.all([next.open(committables), writer.commit(committables, requestOf(1))]);
    expect(await visible(bucket)).toEqual(['row']);
  });

  test('of an older deployment whose upload was cleaned up is refused as fenced', async () => {
    const bucket = new MemoryMultipartStore();
    const { writer, committables } = await prepared(bucket);
    const next = await opened(bucket, { deployment: '6-1' });
    for (const checkpointId of [2, 3]) {
      next.write('row');
      await next.commit(await next.prepareCommit(checkpointId), requestOf(checkpointId, '6-1'));
    }
    expect(await unfinished(bucket)).toEqual([]);
    await expect(writer.commit(committables, requestOf(1))).rejects.toMatchObject({ code: 'FENCED' });
    expect(await visible(bucket)).toEqual(['row', 'row']);
  });

  test('of restored output that is gone, or has another size, is an error and never passed over', async () => {
    const bucket = new MemoryMultipartStore();
    const { committables } = await prepared(bucket);
    const [one] = committables as [Prepared];
    await bucket.abort(one.committable);
    const restore = (options: S3SinkOptions<unknown> = {}) =>
      writerOf(bucket, { deployment: '6-1' }, options).open(committables);
    await expect(restore()).rejects.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining('is lost') });
    await restore({ whenMissing: 'assume-consumed' });
    const upload = { key: one.committable.key, uploadId: await bucket.create(one.committable.key) };
    await bucket.complete(upload, [await bucket.uploadPart(upload, 1, Buffer.from('other'))]);
    await expect(restore()).rejects.toMatchObject({ code: 'CORRUPT', message: expect.stringContaining('5 bytes') });
  });

  test('of output for another bucket is refused', async () => {
    const bucket = new MemoryMultipartStore();
    const { committables } = await prepared(bucket);
    const moved = committables.map((one) => ({ ...one, committable: { ...one.committable, bucket: 'former' } }));
    await expect(writerOf(bucket).open(moved)).rejects.toThrow(/bucket former/);
  });
});

test('closing aborts what was never prepared, and keeps what may belong to a completed checkpoint', async () => {
  const bucket = new MemoryMultipartStore();
  const writer = await opened(bucket);
  writer.write('prepared');
  const committables = await writer.prepareCommit(1);
  for (let i = 0; i < 60; i++) writer.write('x'.repeat(100_000));
  await expect.poll(async () => (await unfinished(bucket)).length).toBe(2);
  await writer.close();
  expect(await unfinished(bucket)).toEqual(committables.map(({ committable }) => committable.key));
});

test('uploads of dead attempts are aborted by the heir of their subtask alone, once every subtask has opened', async () => {
  const bucket = new MemoryMultipartStore();
  const leave = async (attempt: Parameters<typeof writerOf>[1]) => {
    const writer = await opened(bucket, attempt);
    writer.write('left behind');
    const [one] = await writer.prepareCommit(1);
    return one?.committable.key ?? '';
  };
  const own = await leave({ subtask: 0, parallelism: 4, deployment: '5-1' });
  const orphan = await leave({ subtask: 2, parallelism: 4, deployment: '5-1' });
  const others = await leave({ subtask: 1, parallelism: 4, deployment: '5-1' });
  const newer = await leave({ subtask: 0, parallelism: 2, deployment: '12-1' });
  const anotherJob = await leave({ subtask: 0, deployment: '1-1', jobId: 'b'.repeat(32) });
  const writer = await opened(bucket, { subtask: 0, parallelism: 2, deployment: '6-1' });
  await writer.commit(await writer.prepareCommit(7), requestOf(7, '6-1'));
  expect((await unfinished(bucket)).length).toBe(5);
  await writer.commit(await writer.prepareCommit(8), requestOf(8, '6-1'));
  expect((await unfinished(bucket)).sort()).toEqual([others, newer, anotherJob].sort());
  expect(own).not.toBe(orphan);
});

describe('a store that is away', () => {
  function away(bucket: MemoryMultipartStore, clock: ManualClock): S3SinkOptions<unknown> & { back(): void } {
    let here = false;
    const open = async () => {
      const client = new MemoryMultipartStore(bucket);
      client.intercept = () => {
        if (!here) throw new UnavailableError('away');
      };
      return client;
    };
    const back = () => {
      here = true;
    };
    return { provider: { log: silentLogger, open }, clock, patienceMs: 10_000, back };
  }

  test('holds back the checkpoint, and nothing is lost when it is back in time', async () => {
    const bucket = new MemoryMultipartStore();
    const clock = new ManualClock();
    const options = away(bucket, clock);
    const writer = await opened(bucket, {}, options);
    writer.write('row');
    const preparing = writer.prepareCommit(1);
    await clock.advance(3_000);
    options.back();
    await clock.advance(6_000);
    await writer.commit(await preparing, requestOf(1));
    expect(await visible(bucket)).toEqual(['row']);
  });

  test('fails the task once patience is at its end', async () => {
    const bucket = new MemoryMultipartStore();
    const clock = new ManualClock();
    const writer = await opened(bucket, {}, away(bucket, clock));
    writer.write('row');
    const preparing = writer.prepareCommit(1);
    preparing.catch(() => undefined);
    await clock.advance(30_000);
    await expect(preparing).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(() => writer.write('more')).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  });

  test('does not keep an attempt that is to end', async () => {
    const bucket = new MemoryMultipartStore();
    const clock = new ManualClock();
    const ending = new AbortController();
    const writer = await opened(bucket, {}, away(bucket, clock), ending.signal);
    writer.write('row');
    const preparing = writer.prepareCommit(1);
    preparing.catch(() => undefined);
    await clock.advance(50);
    ending.abort();
    await expect(preparing).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await writer.close();
  });
});

test.each([
  ['bucket/prefix', /names no folder of a bucket/],
  ['s3://', /names no folder/],
  ['s3://me:hunter2@bucket/x', /\*\*\*@bucket/],
  ['s3://bucket/a b', /may hold A-Z/],
  ['s3://bucket/a/../b', /no part \. or \.\./],
])('%s is refused with a reason', (uri, says) => {
  expect(() => s3Sink(uri)).toThrow(says);
  expect(() => s3Sink(uri)).not.toThrow(/hunter2/);
});

test('options that cannot be right are refused', () => {
  expect(() => s3Sink('s3://bucket', { uploadBytes: 1024 })).toThrow(/5 MiB/);
  expect(() => s3Sink('s3://bucket', { maxObjectBytes: 0 })).toThrow(/maxObjectBytes/);
  expect(() => s3Sink('s3://bucket', { partPrefix: '_x' })).toThrow(/partPrefix/);
});

test('crashes after any step, restarts with any parallelism and zombies: every row is visible once, none early', async () => {
  await checkHistories(async () => {
    const bucket = new MemoryMultipartStore();
    return {
      writerOf: (attempt) => writerOf(bucket, attempt),
      identityOf: ({ committable }) => committable.uploadId,
      visible: () => visible(bucket),
      end: async () => undefined,
    };
  }, 200);
}, 30_000);
