import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ObjectInfo, ObjectStore } from '../../src/contracts/object-store.ts';
import { digestOf } from '../../src/kernel/digest.ts';

export interface ObjectStoreSubject {
  readonly store: ObjectStore;
  /** Another client of the same objects; the same one where there can be no other. */
  readonly other: ObjectStore;
  close(): Promise<void>;
}

/** What every object store promises, the same tests for all. */
export function objectStoreContract(subjectOf: () => Promise<ObjectStoreSubject>): void {
  let subject: ObjectStoreSubject;
  let store: ObjectStore;
  let other: ObjectStore;

  beforeEach(async () => {
    subject = await subjectOf();
    ({ store, other } = subject);
  });

  afterEach(async () => {
    await store.close();
    await other.close();
    await subject.close();
  });

  test.each([0, 1, 1_000, 300_000])(
    'an object of %i bytes is read back as it was put, whole and in ranges',
    async (size) => {
      const bytes = bytesOf(size);
      await store.put('some/object', bytes);
      expect(same(await other.get('some/object'), bytes)).toBe(true);
      expect(await other.size('some/object')).toBe(size);
      for (const [offset, length] of [
        [0, size],
        [0, 10],
        [size >> 1, 77],
        [size - 1, 1],
        [size - 1, 50],
        [size, 10],
        [size + 100, 10],
        [0, 0],
      ] as const) {
        if (offset < 0) continue;
        const range = await other.getRange('some/object', offset, length);
        expect(same(range, bytes.subarray(offset, offset + length))).toBe(true);
      }
    },
  );

  test('what the caller does with its bytes afterwards changes nothing, and what it reads is its own', async () => {
    const bytes = bytesOf(100);
    const copy = bytes.slice();
    await store.put('k', bytes);
    bytes.fill(0);
    const read = await store.get('k');
    expect(same(read, copy)).toBe(true);
    read.fill(1);
    expect(same(await store.get('k'), copy)).toBe(true);
  });

  test('a view into a larger buffer is stored as the view', async () => {
    const whole = bytesOf(1_000);
    await store.put('k', whole.subarray(100, 200));
    expect(same(await store.get('k'), whole.subarray(100, 200))).toBe(true);
  });

  test('an object that is not there: NOT_FOUND to read, undefined in size, nothing to delete', async () => {
    await expect(store.get('absent')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(store.get('absent/deep')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(store.getRange('absent', 0, 10)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await store.size('absent')).toBeUndefined();
    await store.delete(['absent', 'absent/deep']);
    await store.delete([]);
  });

  test('deleting removes the named objects and no others', async () => {
    for (const key of ['a', 'a/b', 'a/b/c', 'ab']) await store.put(key, bytesOf(3));
    await store.delete(['a/b', 'a', 'absent']);
    expect(await keysOf(other, '')).toEqual(['a/b/c', 'ab']);
    await store.delete(['a/b/c', 'ab']);
    expect(await keysOf(other, '')).toEqual([]);
    await store.put('a/b', bytesOf(4));
    expect(await keysOf(other, '')).toEqual(['a/b']);
  });

  test('deleting more than fits one request removes all', async () => {
    const keys = Array.from({ length: 1_005 }, (_, i) => `d/${String(i).padStart(4, '0')}`);
    for (let i = 0; i < keys.length; i += 50)
      await Promise.all(keys.slice(i, i + 50).map((key) => store.put(key, bytesOf(1))));
    expect(await keysOf(store, 'd/')).toEqual(keys);
    await store.delete([...keys, ...keys.slice(0, 5)]);
    expect(await keysOf(store, '')).toEqual([]);
  }, 60_000);

  test('a listing is in key order, with sizes and times, by any prefix', async () => {
    const keys = ['a', 'a-x', 'a.x', 'a/b', 'a/b.c', 'a/b/c', 'a0', 'aa/b', 'b/a', 'b/aa', 'B', '_/-'];
    const beforeMs = Date.now();
    for (const [i, key] of keys.entries()) await store.put(key, bytesOf(i));
    const all = await gather(other.list(''));
    expect(all.map((one) => one.key)).toEqual([...keys].sort());
    for (const one of all) {
      expect(one.bytes).toBe(keys.indexOf(one.key));
      expect(Math.abs(one.modifiedMs - beforeMs)).toBeLessThan(60_000);
    }
    for (const prefix of ['a', 'a/', 'a/b', 'a/b/', 'b/a', 'c', 'a.', 'B'])
      expect(await keysOf(other, prefix)).toEqual(keys.filter((key) => key.startsWith(prefix)).sort());
  });

  test('a listing that is left early leaves nothing open', async () => {
    for (let i = 0; i < 5; i++) await store.put(`l/${i}`, bytesOf(1));
    for await (const { key } of store.list('l/')) if (key === 'l/1') break;
    expect(await keysOf(store, 'l/')).toHaveLength(5);
  });

  test.each([
    ['nothing', ''],
    ['a climb', '../outside'],
    ['a climb inside', 'a/../../outside'],
    ['a dot', 'a/./b'],
    ['an absolute path', '/etc/passwd'],
    ['a trailing slash', 'a/'],
    ['an empty part', 'a//b'],
    ['a NUL', 'a\0b'],
    ['a space', 'a b'],
    ['a back slash', 'a\\b'],
    ['a per cent', '%2e%2e/x'],
    ['a tilde', '~unfinished/x'],
    ['a letter beyond ASCII', 'ä'],
    ['too long a key', `${'a/'.repeat(256)}b`],
    ['too long a part', 'a'.repeat(201)],
  ])('a key with %s is refused by every call', async (_what, key) => {
    const refused = { code: 'INVALID_ARGUMENT' };
    await expect(store.put(key, bytesOf(1))).rejects.toMatchObject(refused);
    await expect(store.get(key)).rejects.toMatchObject(refused);
    await expect(store.getRange(key, 0, 1)).rejects.toMatchObject(refused);
    await expect(store.size(key)).rejects.toMatchObject(refused);
    await expect(store.delete(['fine', key])).rejects.toMatchObject(refused);
    await expect(store.upload(key)).rejects.toMatchObject(refused);
  });

  test('the longest key is taken', async () => {
    const key = `${'a'.repeat(199)}/`.repeat(2) + 'b'.repeat(112);
    expect(key).toHaveLength(512);
    await store.put(key, bytesOf(9));
    expect(await keysOf(other, '')).toEqual([key]);
    expect(await other.size(key)).toBe(9);
  });

  test('a range that makes no sense is refused', async () => {
    await store.put('k', bytesOf(10));
    for (const [offset, length] of [
      [-1, 5],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
    ] as const)
      await expect(store.getRange('k', offset, length)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('an upload is invisible until it is complete, then whole, whatever the sizes of its parts', async () => {
    const upload = await store.upload('up/large');
    const parts = [
      bytesOf(1),
      bytesOf(3_000_000, 1),
      new Uint8Array(0),
      bytesOf(6_000_000, 2),
      bytesOf(5_242_880, 3),
      bytesOf(7, 4),
    ];
    for (const part of parts) await upload.write(part);
    expect(await other.size('up/large')).toBeUndefined();
    expect(await keysOf(other, '')).toEqual([]);
    await upload.complete();
    const whole = Buffer.concat(parts);
    expect(await other.size('up/large')).toBe(whole.length);
    expect(digestOf(await other.get('up/large'))).toBe(digestOf(whole));
    const range = await other.getRange('up/large', 5_242_870, 4_000_000);
    expect(same(range, whole.subarray(5_242_870, 9_242_870))).toBe(true);
  });

  test.each([0, 10])('an upload of %i bytes in all is an object too', async (size) => {
    const upload = await store.upload('up/small');
    if (size > 0) await upload.write(bytesOf(size));
    await upload.complete();
    expect(same(await other.get('up/small'), bytesOf(size))).toBe(true);
  });

  test('parts that are written without waiting keep their order', async () => {
    const upload = await store.upload('up/eager');
    const parts = Array.from({ length: 12 }, (_, i) => bytesOf(1_000_000, i));
    await Promise.all(parts.map((part) => upload.write(part)));
    await upload.complete();
    expect(digestOf(await other.get('up/eager'))).toBe(digestOf(Buffer.concat(parts)));
  });

  test('an upload keeps the bytes of a part although the caller uses its buffer again', async () => {
    const upload = await store.upload('up/reused');
    const buffer = new Uint8Array(100);
    for (let i = 0; i < 3; i++) {
      buffer.fill(i);
      await upload.write(buffer);
    }
    buffer.fill(99);
    await upload.complete();
    const read = await other.get('up/reused');
    expect([read[0], read[100], read[200]]).toEqual([0, 1, 2]);
  });

  test('an aborted upload leaves nothing behind; aborting again, or after completion, changes nothing', async () => {
    const aborted = await store.upload('up/aborted');
    await aborted.write(bytesOf(6_000_000));
    await aborted.abort();
    await aborted.abort();
    await expect(aborted.write(bytesOf(1))).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(aborted.complete()).rejects.toMatchObject({ code: 'CONFLICT' });
    const completed = await store.upload('up/completed');
    await completed.write(bytesOf(10));
    await completed.complete();
    await completed.abort();
    await expect(completed.complete()).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await keysOf(other, '')).toEqual(['up/completed']);
  });

  test('many at the same time do not disturb each other', async () => {
    const keys = Array.from({ length: 40 }, (_, i) => `same/folder/${i % 7}/${i}`);
    await Promise.all(keys.map((key, i) => store.put(key, bytesOf(2_000, i))));
    await Promise.all(
      keys.map(async (key, i) => {
        expect(same(await other.get(key), bytesOf(2_000, i))).toBe(true);
        await store.delete([key]);
      }),
    );
    expect(await keysOf(store, '')).toEqual([]);
  });

  test('putting and deleting in one folder at the same time never fails', async () => {
    const work = async (name: string) => {
      for (let i = 0; i < 20; i++) {
        await store.put(`busy/folder/${name}`, bytesOf(10));
        await store.delete([`busy/folder/${name}`]);
      }
    };
    await Promise.all(['a', 'b', 'c', 'd'].map(work));
    expect(await keysOf(store, '')).toEqual([]);
  });

  test('an aborted signal ends the call before it begins', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(store.put('k', bytesOf(1), signal)).rejects.toThrow('stopped');
    await expect(store.get('k', signal)).rejects.toThrow('stopped');
    expect(await store.size('k')).toBeUndefined();
  });

  test('a closed store refuses calls', async () => {
    await store.close();
    await store.close();
    await expect(store.put('k', bytesOf(1))).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(store.get('k')).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(gather(store.list(''))).rejects.toMatchObject({ code: 'CLOSED' });
  });
}

/** Bytes that differ from their neighbours and by `seed`, so that a shift or a mix-up shows. */
export function bytesOf(size: number, seed = 0): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >> 8) * 17 + seed * 101) & 0xff;
  return bytes;
}

/** Byte by byte, faster than a deep comparison. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

export async function gather(infos: AsyncIterable<ObjectInfo>): Promise<ObjectInfo[]> {
  const all: ObjectInfo[] = [];
  for await (const info of infos) all.push(info);
  return all;
}

export async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  return (await gather(store.list(prefix))).map((info) => info.key);
}
