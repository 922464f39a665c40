import { InvalidArgumentError } from '../kernel/errors.ts';

/**
 * Which key group a key belongs to, and which Map key stands for it.
 *
 * Both are decided by value and are part of the storage format: savepoints depend on them, so they
 * may never change. Nothing here relies on what differs between processes, engines or Node versions
 * (object identity, insertion order, locale, byte order of the machine).
 */

/** What a `Map` holds for a key: equal exactly when the keys are equal by value. */
export type CanonicalKey = string | number | bigint | boolean;

/**
 * Canonical forms of arrays and objects are strings that begin with NUL and a bracket; strings of the
 * user that begin with NUL get the prefix NUL `s`, so the two can never be taken for each other.
 */
const COMPOSITE = '\u0000';
const ESCAPED_STRING = '\u0000s';

/** Deeper keys are almost certainly cyclic; a stack overflow would name nothing. */
const MAX_DEPTH = 32;

/** The key group in `[0, maxParallelism)` that `key` belongs to for ever. */
export function keyGroupFor(key: unknown, maxParallelism: number): number {
  return hashCanonicalKey(canonicalKey(key)) % maxParallelism;
}

/** Same as {@link keyGroupFor} for a key that is canonical already: spares a second encoding of composite keys. */
export function keyGroupForCanonical(key: CanonicalKey, maxParallelism: number): number {
  return hashCanonicalKey(key) % maxParallelism;
}

/**
 * Strings and numbers stand for themselves (a Map keeps `1` and `'1'` apart, and takes -0 for 0 and
 * NaN for NaN); arrays and plain objects become one string. Throws `INVALID_ARGUMENT` for anything
 * that is not a `Key`.
 */
export function canonicalKey(key: unknown): CanonicalKey {
  switch (typeof key) {
    case 'string':
      return key.charCodeAt(0) === 0 ? ESCAPED_STRING + key : key;
    case 'number':
      // -0 becomes 0 here and not only inside a Map, because snapshots write the canonical key.
      return key === 0 ? 0 : key;
    case 'bigint':
    case 'boolean':
      return key;
    default:
      return COMPOSITE + encode(key, 'key', 0);
  }
}

function encode(value: unknown, path: string, depth: number): string {
  switch (typeof value) {
    case 'string':
      return `s${value.length}:${value}`;
    case 'number':
      // Number-to-string is fixed by the language standard to the shortest form that reads back equal.
      return `n${value};`;
    case 'bigint':
      return `i${value};`;
    case 'boolean':
      return value ? 't' : 'f';
    default:
      return encodeComposite(value, path, depth);
  }
}

function encodeComposite(value: unknown, path: string, depth: number): string {
  if (depth >= MAX_DEPTH) {
    throw new InvalidArgumentError(`${path} is nested deeper than ${MAX_DEPTH} levels or refers to itself`, {
      hint: HINT,
    });
  }
  if (Array.isArray(value)) {
    let out = '[';
    // By index, so that a hole is met (as undefined) and refused rather than skipped.
    for (let i = 0; i < value.length; i++) out += encode(value[i], `${path}[${i}]`, depth + 1);
    return `${out}]`;
  }
  if (!isPlainObject(value)) throw unsupported(value, path);
  let out = '{';
  // The default order compares UTF-16 code units: no locale.
  for (const field of Object.keys(value).sort()) {
    out += `${field.length}:${field}${encode(value[field], `${path}.${field}`, depth + 1)}`;
  }
  return `${out}}`;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // `Object.prototype` of any realm: a program may run in a context of its own.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

const HINT =
  'return a string, number, bigint, boolean, or a plain array or object of those (a Date as its getTime(), bytes as hex)';

function unsupported(value: unknown, path: string): InvalidArgumentError {
  return new InvalidArgumentError(`${path} is ${typeName(value)}, which cannot be a key`, { hint: HINT });
}

function typeName(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value !== 'object') return `a ${typeof value}`;
  const name: unknown = value.constructor?.name;
  return typeof name === 'string' && name !== '' ? `an instance of ${name}` : 'an object of an unnamed class';
}

/** Seeds keep values of different types apart, so that 1, '1', 1n and true spread independently. */
const SEED_STRING = 0x5bd1e995;
const SEED_NUMBER = 0x2f0b4c47;
const SEED_BIGINT = 0x7ed55d16;
const HASH_FALSE = 0x165667b1;
const HASH_TRUE = 0x27d4eb2f;

/** An unsigned 32-bit hash (MurmurHash3, 32 bits) of a canonical key. */
export function hashCanonicalKey(key: CanonicalKey): number {
  switch (typeof key) {
    case 'string':
      return hashString(key, SEED_STRING);
    case 'number':
      return hashNumber(key);
    case 'bigint':
      return hashString(key.toString(), SEED_BIGINT);
    case 'boolean':
      return key ? HASH_TRUE : HASH_FALSE;
  }
}

const float = new DataView(new ArrayBuffer(8));

function hashNumber(value: number): number {
  const int = value | 0;
  // Integers that fit 32 bits are one block; the length (4 or 8) tells the two paths apart.
  if (int === value) return finish(mixBlock(SEED_NUMBER, int), 4);
  // One bit pattern for every NaN; the standard leaves the stored one open.
  if (Number.isNaN(value)) return finish(mixBlock(mixBlock(SEED_NUMBER, 0x7ff80000), 0), 8);
  float.setFloat64(0, value, true);
  return finish(mixBlock(mixBlock(SEED_NUMBER, float.getInt32(4, true)), float.getInt32(0, true)), 8);
}

/** Over UTF-16 code units, two to a block: no encoding to bytes on the way, and lone surrogates are just units. */
function hashString(text: string, seed: number): number {
  const length = text.length;
  let h = seed;
  let i = 0;
  for (; i + 1 < length; i += 2) h = mixBlock(h, text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16));
  if (i < length) h ^= mixTail(text.charCodeAt(i));
  return finish(h, length * 2);
}

function mixBlock(h: number, block: number): number {
  const mixed = h ^ mixTail(block);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function mixTail(block: number): number {
  const k = Math.imul(block, 0xcc9e2d51);
  return Math.imul((k << 15) | (k >>> 17), 0x1b873593);
}

function finish(hash: number, bytes: number): number {
  let h = hash ^ bytes;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
