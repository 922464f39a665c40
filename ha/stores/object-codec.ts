import { createHash } from 'node:crypto';
import { Packr } from 'msgpackr';
import type { z } from 'zod';
import { asError, CorruptError, isMillraceError } from '../../src/kernel/errors.ts';
import type { Digest } from '../../src/kernel/ids.ts';
import type { ObjectStore } from '../../src/contracts/object-store.ts';
import { checkVersion } from './record-codec.ts';

/**
 * The form of the objects that masters write (graphs, details, checkpoint metadata):
 * magic, SHA-256 of the body, body as MessagePack of `{ v, value }`.
 *
 * The digest inside makes an object checkable when no pointer is at hand, as with a savepoint of
 * another cluster; a pointer carries the digest of the whole besides, which ties it to one object.
 */
export interface ObjectType<T> {
  readonly name: string;
  readonly version: number;
  readonly schema: z.ZodType<T>;
}

/** What a pointer says of its object. */
export interface ObjectPointer {
  readonly objectKey: string;
  readonly digest: Digest;
  readonly bytes: number;
}

const MAGIC = Buffer.from('MRO1');
const HEADER_BYTES = MAGIC.length + 32;
// Plain maps, no record extension: any MessagePack reader can read the body.
const packr = new Packr({ useRecords: false, moreTypes: true, copyBuffers: true });

export function encodeObject<T>(type: ObjectType<T>, value: T): Uint8Array {
  const body = packr.pack({ v: type.version, value });
  return Buffer.concat([MAGIC, createHash('sha256').update(body).digest(), body]);
}

/** What bytes in memory were decoded to already. It goes with the bytes. */
const ahead = new WeakMap<Uint8Array, { readonly type: unknown; readonly value: unknown }>();

/** Decodes now what will be needed in a hurry: `decodeObject` of the same bytes then only looks. */
export function decodeAhead<T>(type: ObjectType<T>, objectKey: string, bytes: Uint8Array): void {
  ahead.set(bytes, { type, value: decodeObject(type, objectKey, bytes) });
}

/** A copy for somebody else, with what is known of its content. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes);
  const decoded = ahead.get(bytes);
  if (decoded !== undefined) ahead.set(copy, decoded);
  return copy;
}

/** @throws `CORRUPT` or `UNSUPPORTED_VERSION`. */
export function decodeObject<T>(type: ObjectType<T>, objectKey: string, bytes: Uint8Array): T {
  const decoded = ahead.get(bytes);
  return decoded?.type === type ? (decoded.value as T) : decodeBytes(type, objectKey, bytes);
}

function decodeBytes<T>(type: ObjectType<T>, objectKey: string, bytes: Uint8Array): T {
  const what = `${type.name} object ${objectKey}`;
  const header = bytes.subarray(0, HEADER_BYTES);
  if (header.length < HEADER_BYTES || !MAGIC.equals(header.subarray(0, MAGIC.length)))
    throw new CorruptError(`${what} is not an object of millrace`);
  // A plain Uint8Array, not a Buffer: what is cut out of it keeps that type.
  const body = new Uint8Array(bytes.buffer, bytes.byteOffset + HEADER_BYTES, bytes.length - HEADER_BYTES);
  if (!createHash('sha256').update(body).digest().equals(header.subarray(MAGIC.length)))
    throw new CorruptError(`${what} does not match its digest: it is damaged`);
  let decoded: unknown;
  try {
    decoded = packr.unpack(body);
  } catch (cause) {
    throw new CorruptError(`${what} cannot be decoded`, { cause });
  }
  checkVersion(what, type.version, decoded);
  const parsed = type.schema.safeParse((decoded as { value?: unknown }).value);
  if (!parsed.success) throw new CorruptError(`${what} does not have the expected form`, { cause: parsed.error });
  return parsed.data;
}

export function digestOfBytes(bytes: Uint8Array): Digest {
  return createHash('sha256').update(bytes).digest('hex') as Digest;
}

/**
 * Reads the object behind a pointer and checks size and digest. A missing object under a pointer is
 * damage (`CORRUPT`), never `NOT_FOUND`: the order of writes promises that it is there.
 */
export async function readVerified(objects: ObjectStore, pointer: ObjectPointer): Promise<Uint8Array> {
  const bytes = await objects.get(pointer.objectKey).catch((error: unknown) => {
    if (!isMillraceError(error, 'NOT_FOUND')) throw asError(error);
    throw new CorruptError(`object ${pointer.objectKey} is missing although it is pointed to`, { cause: error });
  });
  if (bytes.length !== pointer.bytes)
    throw new CorruptError(`object ${pointer.objectKey} has ${bytes.length} bytes instead of ${pointer.bytes}`);
  if (digestOfBytes(bytes) !== pointer.digest)
    throw new CorruptError(`object ${pointer.objectKey} does not match the digest in its pointer: it is damaged`);
  return bytes;
}
