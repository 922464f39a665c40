import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TwoPhaseCommitWriter } from '../api/sink.ts';
import { FileSink, type FileSinkOptions, fileSink } from './file-sink.ts';
import type { FileCommittable } from './part-files.ts';
import { readerContext } from './testing/run-reader.ts';

let root = '';
let folders = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'millrace-sink-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const newFolder = () => join(root, `out-${folders++}`);

type Writer = TwoPhaseCommitWriter<unknown, FileCommittable>;

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
  await writer.commit(first, { checkpointId: 1 });
  expect(await visible(folder)).toEqual(['one', '{"two":2}']);
  await writer.commit(await writer.prepareCommit(2), { checkpointId: 2 });
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
  expect(await hidden(folder)).toEqual(committables.map(({ tmp }) => basename(tmp)));
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
  await writer.commit(committables, { checkpointId: 1 });
  expect(await visible(folder)).toEqual([...Array(10).keys()].map((i) => `row ${i}`));
  expect((await readdir(folder)).every((name) => /^words-.*\.txt$/.test(name))).toBe(true);
});

test('bytes from an encoder are written as they are', async () => {
  const folder = newFolder();
  const writer = writerOf(folder, {}, { encoder: (value) => (value === 'text' ? 'text' : Buffer.from(`<${value}>`)) });
  await writer.open([]);
  for (const value of ['text', 'bytes', 'text']) writer.write(value);
  const [committable] = await writer.prepareCommit(1);
  expect(await readFile(committable?.tmp ?? '', 'utf8')).toBe('text\n<bytes>\ntext\n');
});

test('committing is idempotent, and two writers may commit the same file at the same time', async () => {
  const folder = newFolder();
  const zombie = writerOf(folder);
  await zombie.open([]);
  zombie.write('row');
  const committables = await zombie.prepareCommit(1);
  const next = writerOf(folder, { deployment: '6-1' });
  await Promise.all([next.open(committables), zombie.commit(committables, { checkpointId: 1 })]);
  await zombie.commit(committables, { checkpointId: 1 });
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
  await rm(lost.tmp);
  const open = (committable: FileCommittable, options: FileSinkOptions<unknown> = {}) =>
    writerOf(join(committable.tmp, '..'), { deployment: '6-1' }, options).open([committable]);
  await expect(open(lost)).rejects.toMatchObject({
    code: 'CORRUPT',
    message: expect.stringContaining('output is lost'),
  });
  await open(lost, { whenMissing: 'assume-consumed' });
  const torn = await prepared(newFolder());
  await truncate(torn.tmp, 4);
  await expect(open(torn)).rejects.toMatchObject({ code: 'CORRUPT' });
  const replaced = await prepared(newFolder());
  await rm(replaced.tmp);
  await writeFile(replaced.final, 'other');
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
    await writer.commit(committables, { checkpointId });
    await writer.commit(committables, { checkpointId });
    expect((await hidden(folder)).length).toBe(checkpointId === 7 ? 3 : 2);
  }
  expect((await hidden(folder)).some((name) => name.startsWith('.part-3-5-1'))).toBe(false);
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
  expect(committable?.bytes).toBe(5_000_000);
  expect((await stat(committable?.tmp ?? '')).size).toBe(5_000_000);
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

/**
 * A job that writes the numbers from 0 on, subtask `n % parallelism` the number n. Crashes replace all
 * writers at any point; those that were replaced live on as zombies and may do anything but get notices
 * of checkpoints that never completed.
 */
class Job {
  private readonly folder: string;
  private writers: Writer[] = [];
  /** By subtask: prepared and not known to be committed, as the subtask keeps them in its state. */
  private pending: FileCommittable[][] = [];
  private next = 0;
  private deployments = 0;
  private checkpointId = 0;
  private completed = { next: 0, committables: [] as FileCommittable[] };
  private readonly zombies: { writer: Writer; mayCommit: FileCommittable[] }[] = [];

  constructor(folder: string) {
    this.folder = folder;
  }

  async deploy(parallelism: number): Promise<void> {
    for (const [i, writer] of this.writers.entries()) {
      // Of what the zombie prepared, only what a completed checkpoint holds can ever be announced to it.
      const mayCommit = (this.pending[i] ?? []).filter(({ tmp }) =>
        this.completed.committables.some((one) => one.tmp === tmp),
      );
      this.zombies.push({ writer, mayCommit });
    }
    const deployment = `${5 + Math.floor(this.deployments / 3)}-${this.deployments++ % 3}`;
    this.next = this.completed.next;
    this.pending = Array.from({ length: parallelism }, () => []);
    this.writers = Array.from({ length: parallelism }, (_, subtask) =>
      writerOf(this.folder, { subtask, parallelism, deployment }),
    );
    for (const [i, writer] of this.writers.entries()) {
      await writer.open(this.completed.committables.filter((_, n) => n % parallelism === i));
      await this.expectNoDuplicates();
    }
  }

  write(count: number): void {
    for (let i = 0; i < count; i++, this.next++)
      this.writers[this.next % this.writers.length]?.write(String(this.next));
  }

  /** `acknowledged`: how many subtasks prepare before something breaks; all of them: it may complete. */
  async checkpoint(acknowledged: number, commits: number): Promise<void> {
    const checkpointId = ++this.checkpointId;
    const at = this.next;
    for (const [i, writer] of this.writers.entries()) {
      if (i >= acknowledged) return;
      this.pending[i]?.push(...(await writer.prepareCommit(checkpointId)));
    }
    this.completed = { next: at, committables: this.pending.flat() };
    for (const [i, writer] of this.writers.entries()) {
      // The notice reaches so many subtasks; the others keep what they hold for the next checkpoint.
      if (i >= commits) return;
      const committables = this.pending[i] ?? [];
      await writer.commit(committables, { checkpointId });
      this.pending[i] = [];
      await this.expectNoDuplicates();
    }
  }

  async zombieActs(which: number): Promise<void> {
    const zombie = this.zombies[which % Math.max(1, this.zombies.length)];
    if (zombie === undefined) return;
    zombie.writer.write(`zombie of ${this.next}`);
    await zombie.writer.prepareCommit(this.checkpointId + 1);
    await zombie.writer.commit(zombie.mayCommit, { checkpointId: this.checkpointId });
    await this.expectNoDuplicates();
  }

  async finish(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      this.write(3);
      await this.checkpoint(this.writers.length, this.writers.length);
    }
    const expected = [...Array(this.next).keys()].map(String).sort();
    expect(await visible(this.folder)).toEqual(expected);
    for (const { writer } of this.zombies) await writer.close();
    for (const writer of this.writers) await writer.close();
  }

  /** Only rows up to the newest completed checkpoint, each at most once. */
  private async expectNoDuplicates(): Promise<void> {
    const rows = await visible(this.folder);
    expect(new Set(rows).size).toBe(rows.length);
    for (const row of rows) expect(Number(row)).toBeLessThan(this.completed.next);
  }
}

const step = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), count: fc.integer({ min: 1, max: 5 }) }),
  fc.record({
    kind: fc.constant('checkpoint' as const),
    acknowledged: fc.constantFrom(9, 9, 9, 1, 0),
    commits: fc.constantFrom(0, 0, 1, 9),
  }),
  fc.record({ kind: fc.constant('deploy' as const), parallelism: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('zombie' as const), which: fc.nat(5) }),
);

test('crashes after any step, restarts with any parallelism and zombies: every row is visible once, none early', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 20, size: 'max' }), async (steps) => {
      const folder = newFolder();
      const job = new Job(folder);
      await job.deploy(2);
      for (const one of steps) {
        if (one.kind === 'write') job.write(one.count);
        else if (one.kind === 'checkpoint') await job.checkpoint(one.acknowledged, one.commits);
        else if (one.kind === 'deploy') await job.deploy(one.parallelism);
        else await job.zombieActs(one.which);
      }
      await job.finish();
      await rm(folder, { recursive: true });
    }),
    { numRuns: 60 },
  );
}, 30_000);
