import { expect, test } from 'vitest';
import type { MultipartStore, UploadName } from '../../src/contracts/multipart-store.ts';
import { bytesOf } from './object-store.contract.ts';

export interface MultipartWorld {
  readonly store: MultipartStore;
  /** Another client of the same bucket. */
  readonly other: MultipartStore;
  /** All keys of this test begin with it. */
  readonly prefix: string;
  read(key: string): Promise<Uint8Array | undefined>;
}

const PART = 5 * 1024 * 1024;

/** What a two-phase commit relies on, whatever the store. */
export function multipartStoreContract(open: () => Promise<MultipartWorld>): void {
  async function uploadsUnder({ store }: MultipartWorld, prefix: string): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of store.list(prefix)) keys.push(key);
    return keys.sort();
  }

  async function begun({ store, prefix }: MultipartWorld, name: string): Promise<UploadName> {
    const key = `${prefix}${name}`;
    return { key, uploadId: await store.create(key) };
  }

  test('parts are invisible until they are completed, then one object', async () => {
    const world = await open();
    const upload = await begun(world, 'two');
    const parts = [
      await world.store.uploadPart(upload, 1, bytesOf(PART, 1)),
      await world.store.uploadPart(upload, 2, bytesOf(100, 2)),
    ];
    expect(await world.other.size(upload.key)).toBeUndefined();
    expect(await uploadsUnder(world, world.prefix)).toEqual([upload.key]);
    expect(await world.other.complete(upload, parts)).toBe('completed');
    expect(await world.store.size(upload.key)).toBe(PART + 100);
    const read = await world.read(upload.key);
    expect(Buffer.from(read ?? []).equals(Buffer.concat([bytesOf(PART, 1), bytesOf(100, 2)]))).toBe(true);
    expect(await uploadsUnder(world, world.prefix)).toEqual([]);
  });

  test('completing again does nothing to the object, and raced by two clients it happens once', async () => {
    const world = await open();
    const upload = await begun(world, 'again');
    const parts = [await world.store.uploadPart(upload, 1, bytesOf(10))];
    const racing = [world.store.complete(upload, parts), world.other.complete(upload, parts)];
    const outcomes = await Promise.allSettled(racing);
    expect(outcomes).toContainEqual({ status: 'fulfilled', value: 'completed' });
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'UNAVAILABLE' });
    // A server may answer a repetition either way; the object is there, whole.
    expect(['completed', 'gone']).toContain(await world.store.complete(upload, parts));
    expect(await world.store.size(upload.key)).toBe(10);
  });

  test('an aborted upload is gone for who completes it later, and leaves no object', async () => {
    const world = await open();
    const upload = await begun(world, 'aborted');
    const parts = [await world.store.uploadPart(upload, 1, bytesOf(10))];
    await world.other.abort(upload);
    await world.other.abort(upload);
    expect(await world.store.complete(upload, parts)).toBe('gone');
    expect(await world.store.size(upload.key)).toBeUndefined();
    expect(await uploadsUnder(world, world.prefix)).toEqual([]);
  });

  test('aborting what was completed does nothing to the object', async () => {
    const world = await open();
    const upload = await begun(world, 'kept');
    await world.store.complete(upload, [await world.store.uploadPart(upload, 1, bytesOf(10))]);
    await world.store.abort(upload);
    expect(await world.store.size(upload.key)).toBe(10);
  });

  test('a part that is sent again replaces itself', async () => {
    const world = await open();
    const upload = await begun(world, 'replaced');
    await world.store.uploadPart(upload, 1, bytesOf(7, 1));
    const part = await world.store.uploadPart(upload, 1, bytesOf(9, 2));
    expect(await world.store.complete(upload, [part])).toBe('completed');
    expect(await world.store.size(upload.key)).toBe(9);
  });

  test('listing gives the uploads under a prefix alone', async () => {
    const world = await open();
    const one = await begun(world, 'a-1');
    await begun(world, 'b-1');
    expect(await uploadsUnder(world, `${world.prefix}a-`)).toEqual([one.key]);
  });

  test('keys that no store takes are refused before anything is sent', async () => {
    const world = await open();
    await expect(world.store.create('../x')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
}
