import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TwoPhaseCommitWriter } from '../api/sink.ts';
import { FileSink, type FileSinkOptions, fileSink } from './file-sink.ts';
import type { PreCommitted } from '../api/two-phase-commit.ts';
import type { FileCommittable } from './part-files.ts';
import { readerContext } from './testing/run-reader.ts';
import { checkHistories } from './testing/two-phase-histories.ts';

let root = '';
let folders = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'millrace-sink-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const newFolder = () => join(root, `out-${folders++}`);

type Prepared = PreCommitted<FileCommittable>;
type Writer = TwoPhaseCommitWriter<unknown, Prepared>;

const requestOf = (checkpointId: number, deployment = '5-1') => ({ deployment, checkpointId });

function writerOf(
  folder: string,
  { subtask = 0, parallelism = 1, deployment = '5-1' } = {},
  options: FileSinkOptions<unknown> = {},
): Writer {
  return fileSink<unknown>(folder, options).createWriter({
    ...readerContext({ subtaskIndex: subtask, parallelism }),
    deployment,
  });
}

/** What a reader takes: files whose name begins with neither `.` nor `_`. */
async function visible(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => !/^[._]/.test(name)).sort();
  const contents = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  return contents.flatMap((content) => content.split('\n').slice(0, -1)).sort();
}

const hidden = async (folder: string) => (await readdir(folder)).filter((name) => name.startsWith('.'));

test('rows become visible with the commit, whole, and not before', async () => {
  const folder = newFolder();
  const writer = writerOf(folder);
  await writer.open([]);
  writer.write('one');
  writer.write({ two: 2 });
  const preparing = writer.prepareCommit(1);
  // Behind the cut, although nothing of it has resolved.
  writer.write('three');
  const first = await preparing;
  expect(await visible(folder)).toEqual([]);
  expect(JSON.parse(JSON.stringify(first))).toEqual(first);
  await writer.commit(first, requestOf(1));
  expect(await visible(folder)).toEqual(['one', '{"two":2}']);
  await writer.commit(await writer.prepareCommit(2), requestOf(2));
  expect(await visible(folder)).toEqual(['one', 'three', '{"two":2}']);
  expect(await writer.prepareCommit(3)).toEqual([]);
  await writer.close();
  expect(await hidden(folder)).toEqual([]);
  expect((await readdir(folder))[0]).toMatch(/^part-0-5-1-[0-9a-f]{12}-0$/);
});

test('closing removes what was never prepared, and keeps what may belong to a completed checkpoint', async () => {
  const folder = newFolder();
  const writer = writerOf(folder);
  await writer.open([]);
  writer.write('prepared');
  const committables = await writer.prepareCommit(1);
  writer.write('not prepared');
  await writer.close();
  expect(await hidden(folder)).toEqual(committables.map(({ committable }) => basename(committable.tmp)));
  const next = writerOf(folder, { deployment: '5-2' });
  await next.open(committables);
  expect(await visible(folder)).toEqual(['prepared']);
});

test('parts roll by size, and one commit makes all of them visible', async () => {
  const folder = newFolder();
  const writer = FileSink.forRowFormat<number>(folder, (n) => `row ${n}`)
    .withMaxPartBytes(20)
    .withPartPrefix('words')
    .withPartSuffix('.txt')
    .withName('words')
    .build()
    .createWriter({ ...readerContext(), deployment: '5-1' });
  await writer.open([]);
  for (let i = 0; i < 10; i++) writer.write(i);
  const committables = await writer.prepareCommit(1);
  expect(committables.length).toBe(3);
  await writer.commit(committables, requestOf(1));
  expect(await visible(folder)).toEqual([...Array(10).keys()].map((i) => `row ${i}`));
  expect((await readdir(folder)).every((name) => /^words-.*\.txt$/.test(name))).toBe(true);
});

test('bytes from an encoder are written as they are', async () => {
  const folder = newFolder();
  const writer = writerOf(folder, {}, { encoder: (value) => (value === 'text' ? 'text' : Buffer.from(`<${value}>`)) });
  await writer.open([]);
  for (const value of ['text', 'bytes', 'text']) writer.write(value);
  const [committable] = await writer.prepareCommit(1);
  expect(await readFile(committable?.committable.tmp ?? '', 'utf8')).toBe('text\n<bytes>\ntext\n');
});

test('committing is idempotent, and two writers may commit the same file at the same time', async () => {
  const folder = newFolder();
  const zombie = writerOf(folder);
  await zombie.open([]);
  zombie.write('row');
  const committables = await zombie.prepareCommit(1);
  const next = writerOf(folder, { deployment: '6-1' });
  await Promise.all([next.open(committables), zombie.commit(committables, requestOf(1))]);
  await zombie.commit(committables, requestOf(1));
  await next.open(committables);
  expect(await visible(folder)).toEqual(['row']);
});

async function prepared(folder: string) {
  const writer = writerOf(folder);
  await writer.open([]);
  writer.write('0123456789');
  const [committable] = await writer.prepareCommit(1);
  if (committable === undefined) throw new Error('a part was prepared');
  return committable;
}

test('output that is gone, or has another size than was checkpointed, is an error and never passed over', async () => {
  const lost = await prepared(newFolder());
  await rm(lost.committable.tmp);
  const open = (committable: Prepared, options: FileSinkOptions<unknown> = {}) =>
    writerOf(join(committable.committable.tmp, '..'), { deployment: '6-1' }, options).open([committable]);
  await expect(open(lost)).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining('output is lost'),
  });
  await open(lost, { whenMissing: 'assume-consumed' });
  const torn = await prepared(newFolder());
  await truncate(torn.committable.tmp, 4);
  await expect(open(torn)).rejects.toMatchObject({ code: 'CORRUPT' });
  const replaced = await prepared(newFolder());
  await rm(replaced.committable.tmp);
  await writeFile(replaced.committable.final, 'other');
  await expect(open(replaced)).rejects.toMatchObject({ code: 'CORRUPT' });
});

test('leftovers of older deployments go once a cut after a commit proves that every subtask has opened', async () => {
  const folder = newFolder();
  const old = writerOf(folder, { subtask: 3, parallelism: 4, deployment: '5-1' });
  await old.open([]);
  old.write('never completed');
  await old.prepareCommit(1);
  const newer = writerOf(folder, { deployment: '12-1' });
  await newer.open([]);
  newer.write('a writer that replaces us');
  const other = fileSink<unknown>(folder).createWriter({
    ...readerContext({ jobId: 'b'.repeat(32) }),
    deployment: '1-1',
  });
  await other.open([]);
  other.write('another job');
  await newer.prepareCommit(5);
  await other.prepareCommit(5);
  const writer = writerOf(folder, { deployment: '6-1' });
  await writer.open([]);
  expect((await hidden(folder)).length).toBe(3);
  for (const checkpointId of [7, 8]) {
    writer.write('row');
    const committables = await writer.prepareCommit(checkpointId);
    await writer.commit(committables, requestOf(checkpointId));
    await writer.commit(committables, requestOf(checkpointId));
    expect((await hidden(folder)).length).toBe(checkpointId === 7 ? 3 : 2);
  }
  expect((await hidden(folder)).some((name) => name.startsWith('.part-3-5-1'))).toBe(false);
});

test('every committable says for which deployment and checkpoint it was made', async () => {
  const writer = writerOf(newFolder(), { deployment: '7-3' });
  await writer.open([]);
  writer.write('row');
  expect(await writer.prepareCommit(12)).toMatchObject([{ deployment: '7-3', checkpointId: 12 }]);
});

test('a commit of an older deployment is refused as fenced once the folder shows its successor', async () => {
  const folder = newFolder();
  const zombie = writerOf(folder, { deployment: '5-1' });
  await zombie.open([]);
  zombie.write('row');
  const committables = await zombie.prepareCommit(1);
  const next = writerOf(folder, { deployment: '6-1' });
  await next.open([]);
  for (const checkpointId of [2, 3]) {
    next.write('row');
    await next.commit(await next.prepareCommit(checkpointId), requestOf(checkpointId, '6-1'));
  }
  next.write('the present');
  await next.prepareCommit(4);
  await expect(zombie.commit(committables, requestOf(1))).rejects.toMatchObject({ code: 'FENCED' });
  expect(await visible(folder)).toEqual(['row', 'row']);
});

test('each subtask removes its own leftovers: another may still run in the older deployment', async () => {
  const folder = newFolder();
  const survivor = writerOf(folder, { subtask: 1, parallelism: 2, deployment: '5-1' });
  await survivor.open([]);
  survivor.write('still wanted');
  const committables = await survivor.prepareCommit(3);
  const restarted = writerOf(folder, { subtask: 0, parallelism: 2, deployment: '5-2' });
  await restarted.open([]);
  for (const checkpointId of [3, 4]) {
    await restarted.commit(await restarted.prepareCommit(checkpointId), requestOf(checkpointId, '5-2'));
  }
  await survivor.commit(committables, requestOf(3));
  expect(await visible(folder)).toEqual(['still wanted']);
});

test('a slow disk holds the writer back, and nothing is lost', async () => {
  const folder = newFolder();
  const writer = writerOf(folder);
  await writer.open([]);
  const row = 'x'.repeat(9_999);
  let waits = 0;
  for (let i = 0; i < 500; i++) {
    writer.write(row);
    const ready = writer.ready();
    if (ready !== undefined) {
      waits++;
      await ready;
    }
  }
  expect(waits).toBeGreaterThan(0);
  const [committable] = await writer.prepareCommit(1);
  expect(committable?.committable.bytes).toBe(5_000_000);
  expect((await stat(committable?.committable.tmp ?? '')).size).toBe(5_000_000);
});

test('a folder that cannot be written fails the writer with a reason', async () => {
  const file = join(root, 'a-file');
  await writeFile(file, '');
  await expect(writerOf(join(file, 'below')).open([])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  const folder = newFolder();
  const writer = writerOf(folder);
  await writer.open([]);
  await rm(folder, { recursive: true });
  writer.write('row');
  await expect(writer.prepareCommit(1)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(() => writer.write('row')).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  await writer.close();
});

test('options and records that cannot be written are refused', async () => {
  expect(() => fileSink(newFolder(), { partPrefix: '.hidden' })).toThrow(/partPrefix '.hidden'/);
  expect(() => fileSink(newFolder(), { partPrefix: 'a/b' })).toThrow(/partPrefix/);
  expect(() => fileSink(newFolder(), { partSuffix: '/x' })).toThrow(/partSuffix/);
  expect(() => fileSink(newFolder(), { maxPartBytes: 0 })).toThrow(/maxPartBytes/);
  const writer = writerOf(newFolder());
  await writer.open([]);
  for (const value of [undefined, 1n]) {
    expect(() => writer.write(value)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  }
});

test('crashes after any step, restarts with any parallelism and zombies: every row is visible once, none early', async () => {
  await checkHistories(async () => {
    const folder = newFolder();
    return {
      writerOf: (attempt) => writerOf(folder, attempt),
      identityOf: ({ committable }) => committable.tmp,
      visible: () => visible(folder),
      end: () => rm(folder, { recursive: true }),
    };
  });
}, 30_000);
