import { GetObjectCommand, ListMultipartUploadsCommand, ListObjectsV2Command, type S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SystemClock } from '../kernel/clock.ts';
import { silentLogger } from '../kernel/log.ts';
import { createS3Client, Rgw } from '../../test-support/rgw.ts';
import { S3MultipartStore } from '../../ha/objects/s3-multipart-store.ts';
import type { TwoPhaseCommitWriter } from '../api/sink.ts';
import type { PreCommitted } from '../api/two-phase-commit.ts';
import type { S3Committable } from './s3-part.ts';
import { type S3SinkOptions, s3Sink } from './s3-sink.ts';
import { readerContext } from './testing/run-reader.ts';
import { checkHistories } from './testing/two-phase-histories.ts';

/** Against a real server: Ceph's RADOS gateway, which is killed and started again. */
let rgw: Rgw;
let bucket: string;
let client: S3Client;
let prefixes = 0;
const open: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  rgw = await Rgw.start();
  bucket = await rgw.createBucket();
  client = createS3Client(rgw.access);
});
afterAll(async () => {
  for (const one of open) await one.close();
  client?.destroy();
  await rgw?.close();
});

type Prepared = PreCommitted<S3Committable>;
type Writer = TwoPhaseCommitWriter<unknown, Prepared>;

const provider = {
  log: silentLogger,
  open: async () => {
    const { endpoint, region, credentials } = rgw.access;
    const store = S3MultipartStore.open(
      { clock: new SystemClock(), log: silentLogger },
      { bucket, endpoint, region, credentials, attemptsMax: 1 },
    );
    open.push(store);
    return store;
  },
};

function writerOf(
  prefix: string,
  { subtask = 0, parallelism = 1, deployment = '5-1' } = {},
  options: S3SinkOptions<unknown> = {},
): Writer {
  return s3Sink<unknown>(`s3://${bucket}/${prefix}`, { provider, ...options }).createWriter({
    ...readerContext({ subtaskIndex: subtask, parallelism }),
    deployment,
  });
}

async function visible(prefix: string): Promise<string[]> {
  const rows: string[] = [];
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: `${prefix}/` }));
  for (const { Key } of Contents) {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key }));
    rows.push(...((await Body?.transformToString()) ?? '').split('\n').slice(0, -1));
  }
  return rows.sort();
}

async function unfinished(prefix: string): Promise<number> {
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: `${prefix}/` }));
  return Uploads.length;
}

const newPrefix = () => `out-${prefixes++}`;
const requestOf = (checkpointId: number, deployment = '5-1') => ({ deployment, checkpointId });

async function prepared(prefix: string, rows: readonly string[]) {
  const writer = writerOf(prefix);
  await writer.open([]);
  for (const row of rows) writer.write(row);
  return { writer, committables: await writer.prepareCommit(1) };
}

test('a store that dies between preCommit and commit: the commit says so, and succeeds when it is repeated', async () => {
  const prefix = newPrefix();
  const { writer, committables } = await prepared(prefix, ['a', 'b']);
  await rgw.kill();
  await expect(writer.commit(committables, requestOf(1))).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await rgw.restart();
  expect(await visible(prefix)).toEqual([]);
  await writer.commit(committables, requestOf(1));
  await writer.commit(committables, requestOf(1));
  expect(await visible(prefix)).toEqual(['a', 'b']);
});

test('an attempt that dies between preCommit and commit: the next one commits, and the zombie changes nothing', async () => {
  const prefix = newPrefix();
  const { writer: zombie, committables } = await prepared(prefix, ['a']);
  // As state goes: through a checkpoint, into another process.
  const restored = structuredClone(committables);
  const next = writerOf(prefix, { deployment: '6-1' });
  const [, zombies] = await Promise.allSettled([next.open(restored), zombie.commit(committables, requestOf(1))]);
  // The slower of two may be told to ask again, and then finds it done.
  if (zombies.status === 'rejected') expect(zombies.reason).toMatchObject({ code: 'UNAVAILABLE' });
  await zombie.commit(committables, requestOf(1));
  await writerOf(prefix, { deployment: '7-1' }).open(restored);
  expect(await visible(prefix)).toEqual(['a']);
  expect(await unfinished(prefix)).toBe(0);
});

test('what a dead attempt left is aborted by the next, and its commit is refused as fenced', async () => {
  const prefix = newPrefix();
  const { writer: zombie, committables } = await prepared(prefix, ['never completed']);
  const next = writerOf(prefix, { deployment: '6-1' });
  await next.open([]);
  for (const checkpointId of [2, 3]) {
    next.write(`row ${checkpointId}`);
    await next.commit(await next.prepareCommit(checkpointId), requestOf(checkpointId, '6-1'));
  }
  expect(await unfinished(prefix)).toBe(0);
  await expect(zombie.commit(committables, requestOf(1))).rejects.toMatchObject({ code: 'FENCED' });
  expect(await visible(prefix)).toEqual(['row 2', 'row 3']);
});

test('a store that dies while parts go out holds the stream back, and nothing is lost', async () => {
  const prefix = newPrefix();
  const writer = writerOf(prefix);
  await writer.open([]);
  const row = 'x'.repeat(99_999);
  for (let i = 0; i < 60; i++) writer.write(row);
  await rgw.kill();
  for (let i = 0; i < 60; i++) writer.write(row);
  const preparing = writer.prepareCommit(1);
  await rgw.restart();
  const committables = await preparing;
  await writer.commit(committables, requestOf(1));
  expect((await visible(prefix)).length).toBe(120);
});

test('random histories of crashes, restarts and zombies: every row is visible once, none early', async () => {
  await checkHistories(async () => {
    const prefix = newPrefix();
    return {
      writerOf: (attempt) => writerOf(prefix, attempt),
      identityOf: ({ committable }) => committable.uploadId,
      visible: () => visible(prefix),
      end: async () => undefined,
    };
  }, 4);
});
