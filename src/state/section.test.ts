import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeSection, encodeSection } from './section.ts';

const where = { object: 'o', section: 'key group 3', keyGroup: 3 };
const COMPRESSIONS = ['none', 'gzip', 'lz4'] as const;

test('a section says how it is compressed: whatever wrote it, it is read without being told', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ maxLength: 20 }), { maxLength: 8 }),
      fc.nat(400),
      fc.constantFrom(...COMPRESSIONS),
      async (words, times, compression) => {
        const raw = Buffer.from(words.join(' ').repeat(times));
        const section = await encodeSection(raw, 3, compression);
        expect((await decodeSection(section, where)).equals(raw)).toBe(true);
      },
    ),
    { numRuns: 100 },
  );
});

test('compression saves bytes where there are any to save, and costs none where there are not', async () => {
  const repeated = Buffer.from('word count '.repeat(1_000));
  const random = Buffer.from(Array.from({ length: 4_000 }, (_, i) => (i * 2_654_435_761) >>> 24));
  const sizes = await Promise.all(COMPRESSIONS.map(async (one) => (await encodeSection(repeated, 3, one)).length));
  expect(sizes[1]).toBeLessThan(repeated.length / 20);
  expect(sizes[2]).toBeLessThan(repeated.length / 20);
  for (const compression of COMPRESSIONS) {
    expect((await encodeSection(random, 3, compression)).length).toBeLessThanOrEqual(random.length + 20);
  }
});

/** Changes a byte and makes the checksum fit again: what only a newer version, or malice, writes. */
function forged(section: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(section);
  copy.writeUInt8(value, at);
  copy.writeUInt32LE(crc32(copy.subarray(20), crc32(copy.subarray(0, 16))), 16);
  return copy;
}

test('damage is found and named; an unknown compression asks for a newer version', async () => {
  const raw = Buffer.from('state '.repeat(200));
  for (const compression of COMPRESSIONS) {
    const section = await encodeSection(raw, 3, compression);
    for (const at of [0, 5, 9, 25, section.length - 1]) {
      const damaged = Buffer.from(section);
      damaged.writeUInt8((damaged.readUInt8(at) + 1) % 256, at);
      await expect(decodeSection(damaged, where)).rejects.toMatchObject({ code: 'CORRUPT' });
    }
    await expect(decodeSection(section.subarray(0, -1), where)).rejects.toThrow('key group 3 of o is damaged');
    await expect(decodeSection(forged(section, 6, 9), where)).rejects.toMatchObject({ code: 'UNSUPPORTED_VERSION' });
  }
  // The size that lz4 would allocate comes from its own first bytes: it is not trusted.
  const lz4 = await encodeSection(raw, 3, 'lz4');
  await expect(decodeSection(forged(lz4, 23, 0xff), where)).rejects.toMatchObject({ code: 'CORRUPT' });
});
