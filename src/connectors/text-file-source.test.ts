import { appendFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { readerContext, readUpTo } from './testing/run-reader.ts';
import { type TextFileSourceOptions, textFileSource } from './text-file-source.ts';
import type { TextFileSplit } from './text-file-splits.ts';

let folder = '';
let files = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-text-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function fileOf(content: string | Buffer, name = `file-${files++}.txt`): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

/** Reads splits to the end in one subtask. */
async function linesOf(
  path: string,
  splits: readonly TextFileSplit[],
  options: TextFileSourceOptions = {},
): Promise<string[]> {
  const reader = textFileSource(path, options).createReader(readerContext());
  await reader.open(splits);
  try {
    return await readUpTo(reader);
  } finally {
    await reader.close();
  }
}

async function readAll(path: string, options: TextFileSourceOptions = {}): Promise<string[]> {
  return linesOf(path, await textFileSource(path, options).enumerateSplits({ parallelism: 1 }), options);
}

/** The definition that the source is held to: bytes between newlines, decoded each for itself. */
function linesByDefinition(content: Buffer): string[] {
  const lines: string[] = [];
  for (let start = 0; start < content.length; ) {
    const newline = content.indexOf(0x0a, start);
    const end = newline < 0 ? content.length : newline;
    lines.push(content.subarray(start, end).toString('utf8').replace(/\r$/, ''));
    start = end + 1;
  }
  return lines;
}

const piece = fc.constantFrom('a', 'word ', 'é', '漢', '😀', '\n', '\n', '\r\n', '\r', '\t', '0123456789'.repeat(3));
const content = fc.oneof(
  fc.array(piece, { maxLength: 60 }).map((pieces) => Buffer.from(pieces.join(''))),
  // Malformed UTF-8 too: positions must hold whatever the bytes are.
  fc
    .array(fc.constantFrom(0x0a, 0x0d, 0x61, 0xc3, 0xa9, 0xff, 0xf0, 0x80), { maxLength: 60 })
    .map((bytes) => Buffer.from(bytes)),
);

test('any content, in splits of any size, read in chunks of any size, gives every line once and in order', async () => {
  await fc.assert(
    fc.asyncProperty(
      content,
      fc.integer({ min: 1, max: 70 }),
      fc.integer({ min: 1, max: 40 }),
      async (bytes, splitBytes, chunkBytes) => {
        const path = await fileOf(bytes, 'property.txt');
        expect(await readAll(path, { splitBytes, chunkBytes })).toEqual(linesByDefinition(bytes));
      },
    ),
    { numRuns: 300 },
  );
});

test('stopped after any records and resumed from the snapshot with any parallelism, it loses and repeats nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      content,
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 0, max: 6 })), {
        minLength: 1,
        maxLength: 4,
      }),
      async (bytes, splitBytes, chunkBytes, stops) => {
        const path = await fileOf(bytes, 'restart.txt');
        const source = textFileSource(path, { splitBytes, chunkBytes });
        let splits = await source.enumerateSplits({ parallelism: 2 });
        const lines: string[] = [];
        for (const [parallelism, records] of [...stops, [2, Number.POSITIVE_INFINITY] as const]) {
          const left: TextFileSplit[] = [];
          for (let i = 0; i < parallelism; i++) {
            const reader = source.createReader(readerContext({ subtaskIndex: i, parallelism }));
            await reader.open(splits.filter((_, n) => n % parallelism === i));
            lines.push(...(await readUpTo(reader, records, 2)));
            // Through JSON, as a checkpoint would keep it.
            left.push(...(JSON.parse(JSON.stringify(reader.snapshot())) as TextFileSplit[]));
            await reader.close();
          }
          splits = left;
        }
        expect(splits).toEqual([]);
        expect(lines.sort()).toEqual(linesByDefinition(bytes).sort());
      },
    ),
    { numRuns: 150 },
  );
});

test('a byte order mark is dropped from the first line and kept elsewhere', async () => {
  expect(await readAll(await fileOf('\ufefffirst\n\ufeffsecond'))).toEqual(['first', '\ufeffsecond']);
});

test('an empty file has no lines and no splits', async () => {
  const source = textFileSource(await fileOf(''));
  expect(await source.enumerateSplits({ parallelism: 4 })).toEqual([]);
  const reader = source.createReader(readerContext());
  await reader.open([]);
  expect(reader.poll({ collect: () => {} }, 10)).toBe('end');
  await reader.close();
});

test('a folder gives its files in order of name, without hidden and underscored ones, and below only when asked', async () => {
  const root = join(folder, 'root');
  await mkdir(join(root, 'sub', '_logs'), { recursive: true });
  for (const name of ['b.txt', 'a.txt', '.hidden', '_SUCCESS', 'sub/c.txt', 'sub/_logs/d.txt']) {
    await writeFile(join(root, name), `${name}\n`);
  }
  expect(await readAll(root)).toEqual(['a.txt', 'b.txt']);
  expect(await readAll(root, { recursive: true })).toEqual(['a.txt', 'b.txt', 'sub/c.txt']);
  expect(await readAll(pathToFileURL(root).href)).toEqual(['a.txt', 'b.txt']);
  expect(await readAll(relative(process.cwd(), root))).toEqual(['a.txt', 'b.txt']);
});

test('a large file is shared out over the subtasks, an input of any size into a bounded number of splits', async () => {
  const path = await fileOf(Buffer.alloc(1_000_000, 'some line\n'));
  const sizes = (splits: readonly TextFileSplit[]) => splits.map(({ from, to }) => to - from);
  expect(sizes(await textFileSource(path).enumerateSplits({ parallelism: 1 }))).toEqual([1_000_000]);
  expect(sizes(await textFileSource(path).enumerateSplits({ parallelism: 4 }))).toEqual([
    250_000, 250_000, 250_000, 250_000,
  ]);
  expect(
    (await textFileSource(path, { splitBytes: 1 }).enumerateSplits({ parallelism: 1 })).length,
  ).toBeLessThanOrEqual(4_100);
});

test('what is not there, or cannot be read as a file, is refused when the job is submitted', async () => {
  await expect(textFileSource(join(folder, 'missing.txt')).enumerateSplits({ parallelism: 1 })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    message: expect.stringContaining('missing.txt'),
  });
  await expect(textFileSource('/dev/null').enumerateSplits({ parallelism: 1 })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
  expect(() => textFileSource('s3://bucket/key')).toThrow(/scheme 's3'/);
  expect(() => textFileSource('')).toThrow(/path is needed/);
  expect(() => textFileSource('a', { splitBytes: 0 })).toThrow(/splitBytes is 0/);
  expect(() => textFileSource('a', { ratePerSecond: -1 })).toThrow(/ratePerSecond is -1/);
});

test('a file that was truncated, extended or removed since the job was submitted fails the read with a reason', async () => {
  const path = await fileOf('one\ntwo\nthree\n');
  const splits = await textFileSource(path).enumerateSplits({ parallelism: 1 });
  await appendFile(path, 'four\n');
  await expect(linesOf(path, splits)).rejects.toThrow(/had 14 when the job was submitted/);
  await truncate(path, 5);
  await expect(linesOf(path, splits)).rejects.toMatchObject({ code: 'CORRUPT' });
  await rm(path);
  await expect(linesOf(path, splits)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('a file truncated while it is read fails, after the lines that were read before', async () => {
  const path = await fileOf('line\n'.repeat(50_000));
  const source = textFileSource(path, { chunkBytes: 1_000 });
  const reader = source.createReader(readerContext());
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  expect(await readUpTo(reader, 10)).toHaveLength(10);
  await truncate(path, 20_000);
  await expect(readUpTo(reader)).rejects.toMatchObject({ code: 'CORRUPT' });
  await reader.close();
});

test('a line longer than the limit is an error that says where it is', async () => {
  const path = await fileOf(`short\n${'x'.repeat(5_000)}\n`);
  await expect(readAll(path, { chunkBytes: 100, maxLineBytes: 1_000 })).rejects.toMatchObject({
    code: 'TOO_LARGE',
    message: expect.stringContaining('byte 6'),
  });
  expect(await readAll(path, { chunkBytes: 100, maxLineBytes: 5_000 })).toHaveLength(2);
});

test('reading ahead is bounded, and closing in the middle stops it', async () => {
  const path = await fileOf('line\n'.repeat(200_000));
  const source = textFileSource(path, { chunkBytes: 1_000 });
  const reader = source.createReader(readerContext());
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  await readUpTo(reader, 1);
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  expect((reader as unknown as { ahead: unknown[] }).ahead.length).toBeLessThanOrEqual(2);
  await reader.close();
  await reader.available();
});

test('a rate holds all subtasks together to so many lines a second, by the injected clock', async () => {
  const path = await fileOf('line\n'.repeat(1_000));
  const clock = new ManualClock();
  const source = textFileSource(path, { ratePerSecond: 200, clock });
  const reader = source.createReader(readerContext({ parallelism: 2 }));
  await reader.open(await source.enumerateSplits({ parallelism: 1 }));
  const lines: string[] = [];
  let done = false;
  const running = (async () => {
    while (!done) {
      if (reader.poll({ collect: (line) => void lines.push(line) }, 1_000) === 'wait') await reader.available();
    }
  })();
  // The file is read in real time, and the first line needs no waiting.
  await until('the file to be read', () => lines.length > 0);
  for (let i = 0; i < 100; i++) await clock.advance(20);
  // 100 a second for this one of two subtasks, over two seconds.
  expect(lines.length).toBeGreaterThanOrEqual(190);
  expect(lines.length).toBeLessThanOrEqual(201);
  done = true;
  await reader.close();
  await running;
  expect(clock.pending).toBe(0);
});
