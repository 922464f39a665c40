import { crc32, gunzip, gzip } from 'node:zlib';
import { promisify } from 'node:util';
import { CorruptError, MillraceError } from '../kernel/errors.ts';
import type { SnapshotCompression } from '../contracts/job-graph.ts';

/**
 * A section: the bytes of one key group, or of one item of operator state, inside a state object.
 *
 * Sections are read alone, by range, after a change of parallelism, so the digest of the whole object
 * cannot vouch for them: each carries its own checksum, version and compression.
 *
 * Layout (little-endian): `M` `R` `S` version(1) | key group or 0xffff (2) | compression (1) | 0 (1) |
 * raw bytes (4) | stored bytes (4) | CRC-32 over the 16 bytes before and the stored bytes (4) | stored bytes.
 */
export const SECTION_HEADER_BYTES = 20;
const MAGIC = 0x53_52_4d;
const VERSION = 1;
const NO_KEY_GROUP = 0xffff;

/** What the compression byte says; never changed, only added to. */
const RAW = 0;
const GZIP = 1;
const LZ4 = 2;

const compress = promisify(gzip);
const decompress = promisify(gunzip);
/** A native module: loaded only where it is used. */
let lz4: Promise<typeof import('lz4-napi')> | undefined;

/** Smaller ones gain nothing worth a trip to the thread pool. */
const COMPRESSED_BYTES_MIN = 256;

/** A section says of itself how it is compressed: reading it takes no configuration. */
export async function encodeSection(raw: Buffer, keyGroup: number, compression: SnapshotCompression): Promise<Buffer> {
  if (compression === 'none' || raw.length < COMPRESSED_BYTES_MIN) return encodeRawSection(raw, keyGroup);
  const packed = await pack(raw, compression);
  return packed.length < raw.length
    ? frame(packed, { keyGroup, compression: compression === 'gzip' ? GZIP : LZ4, rawBytes: raw.length })
    : encodeRawSection(raw, keyGroup);
}

async function pack(raw: Buffer, compression: 'gzip' | 'lz4'): Promise<Buffer> {
  // Level 1: state is written every few seconds and read after failures only.
  if (compression === 'gzip') return compress(raw, { level: 1 });
  lz4 ??= import('lz4-napi');
  return (await lz4).compress(raw);
}

/** For items of operator state, which are small: no compression, no waiting. */
export function encodeRawSection(raw: Buffer, keyGroup: number = NO_KEY_GROUP): Buffer {
  return frame(raw, { keyGroup, compression: RAW, rawBytes: raw.length });
}

interface SectionHeader {
  readonly keyGroup: number;
  readonly compression: number;
  readonly rawBytes: number;
}

function frame(stored: Buffer, { keyGroup, compression, rawBytes }: SectionHeader): Buffer {
  const section = Buffer.allocUnsafe(SECTION_HEADER_BYTES + stored.length);
  section.writeUIntLE(MAGIC, 0, 3);
  section.writeUInt8(VERSION, 3);
  section.writeUInt16LE(keyGroup, 4);
  section.writeUInt8(compression, 6);
  section.writeUInt8(0, 7);
  section.writeUInt32LE(rawBytes, 8);
  section.writeUInt32LE(stored.length, 12);
  section.set(stored, SECTION_HEADER_BYTES);
  section.writeUInt32LE(checksum(section), 16);
  return section;
}

/** Verifies and unpacks one section. `where` names it in errors. */
export async function decodeSection(section: Buffer, where: SectionPlace): Promise<Buffer> {
  const { stored, compression, rawBytes } = open(section, where);
  const raw = compression === RAW ? stored : await unpack(stored, compression, rawBytes, where);
  if (raw.length !== rawBytes) throw damaged(where, 'it unpacks to another size than recorded');
  return raw;
}

async function unpack(stored: Buffer, compression: number, rawBytes: number, where: SectionPlace): Promise<Buffer> {
  try {
    if (compression === GZIP) return await decompress(stored, { maxOutputLength: Math.max(rawBytes, 1) });
    // It begins with the size that it unpacks to, and trusts it.
    if (stored.length < 4 || stored.readUInt32LE(0) !== rawBytes) throw new Error('it has another size than recorded');
    lz4 ??= import('lz4-napi');
    return await (await lz4).uncompress(stored);
  } catch (error) {
    throw damaged(where, 'it cannot be unpacked', error);
  }
}

export interface SectionPlace {
  /** The object's key, or `inline state`. */
  readonly object: string;
  /** For example `key group 17`. */
  readonly section: string;
  readonly keyGroup?: number;
}

function open(section: Buffer, where: SectionPlace) {
  if (section.length < SECTION_HEADER_BYTES) throw damaged(where, 'it is shorter than its header');
  if (section.readUIntLE(0, 3) !== MAGIC) throw damaged(where, 'it does not begin as a section does');
  const version = section.readUInt8(3);
  if (version > VERSION) {
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `${describe(where)} has format ${version}; this version reads up to ${VERSION}`,
      {
        hint: 'restore with the version of millrace that wrote it, or a newer one',
      },
    );
  }
  if (section.readUInt32LE(12) !== section.length - SECTION_HEADER_BYTES)
    throw damaged(where, 'its length is not the recorded one');
  if (section.readUInt32LE(16) !== checksum(section)) throw damaged(where, 'its checksum does not match');
  const keyGroup = section.readUInt16LE(4);
  if (where.keyGroup !== undefined && keyGroup !== where.keyGroup)
    throw damaged(where, `it belongs to key group ${keyGroup}`);
  const compression = section.readUInt8(6);
  if (compression !== RAW && compression !== GZIP && compression !== LZ4) {
    throw new MillraceError('UNSUPPORTED_VERSION', `${describe(where)} is compressed in a way not known here`, {
      hint: 'restore with the version of millrace that wrote it, or a newer one',
    });
  }
  return {
    stored: section.subarray(SECTION_HEADER_BYTES),
    compression,
    rawBytes: section.readUInt32LE(8),
  };
}

function checksum(section: Buffer): number {
  return crc32(section.subarray(SECTION_HEADER_BYTES), crc32(section.subarray(0, 16)));
}

function describe({ object, section }: SectionPlace): string {
  return `${section} of ${object}`;
}

export function damaged(where: SectionPlace, what: string, cause?: unknown): CorruptError {
  return new CorruptError(`${describe(where)} is damaged: ${what}`, {
    hint: 'restore from an older checkpoint or savepoint, and check the object store',
    cause,
  });
}
