import type { CanonicalKey } from './key-group-hash.ts';
import { Stamped } from './stamped.ts';
import { isPlainObject, setField, tooDeep, unsupportedValue, VALUE_DEPTH_MAX } from './value-codec.ts';

/**
 * Values on their way into and out of state.
 *
 * Going in, long strings are copied: V8 makes a slice of 13 or more characters point into its parent,
 * so one word cut from a decoded column would keep the whole column alive (measured: 11.5 kB a key).
 * Values of unsupported types are refused here and not at the next checkpoint, while the line of the
 * user's code that is to blame is still on the stack.
 */

/** Shorter slices are always copies (`SlicedString::kMinLength` in V8). */
const SLICE_CHARS_MIN = 13;

/** The same text in memory of its own. */
export function ownString(text: string): string {
  // The concatenation is a fresh string; the slice may point into it, which costs one character.
  return text.length < SLICE_CHARS_MIN ? text : ` ${text}`.slice(1);
}

/** `value` itself when nothing in it had to be copied. Throws `INVALID_ARGUMENT` for an unsupported type. */
export function admit<T>(value: T): T {
  return admitValue(value, 0) as T;
}

function admitValue(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
      return ownString(value);
    case 'object':
      return value === null ? null : admitObject(value, depth);
    case 'function':
    case 'symbol':
      throw unsupportedValue(value);
    default:
      return value;
  }
}

function admitObject(value: object, depth: number): object {
  if (depth >= VALUE_DEPTH_MAX) throw tooDeep();
  if (Array.isArray(value)) return admitArray(value, depth);
  if (isPlainObject(value)) return admitFields(value, depth);
  if (value instanceof Map) {
    let changed = false;
    const entries: [unknown, unknown][] = [];
    for (const [key, item] of value) {
      const entry: [unknown, unknown] = [admitValue(key, depth + 1), admitValue(item, depth + 1)];
      changed ||= isCopy(key, entry[0]) || isCopy(item, entry[1]);
      entries.push(entry);
    }
    return changed ? new Map(entries) : value;
  }
  if (value instanceof Set) {
    let changed = false;
    const items: unknown[] = [];
    for (const item of value) {
      const admitted = admitValue(item, depth + 1);
      changed ||= isCopy(item, admitted);
      items.push(admitted);
    }
    return changed ? new Set(items) : value;
  }
  if (value instanceof Date || (ArrayBuffer.isView(value) && !(value instanceof DataView))) return value;
  throw unsupportedValue(value);
}

function admitArray(value: readonly unknown[], depth: number): readonly unknown[] {
  let copy: unknown[] | undefined;
  for (let i = 0; i < value.length; i++) {
    const item = value[i];
    const admitted = admitValue(item, depth + 1);
    if (isCopy(item, admitted)) {
      copy ??= value.slice();
      copy[i] = admitted;
    }
  }
  return copy ?? value;
}

function admitFields(value: Record<string, unknown>, depth: number): Record<string, unknown> {
  let copy: Record<string, unknown> | undefined;
  for (const field of Object.keys(value)) {
    const item = value[field];
    const admitted = admitValue(item, depth + 1);
    if (isCopy(item, admitted)) {
      copy ??= { ...value };
      setField(copy, field, admitted);
    }
  }
  return copy ?? value;
}

/** A copied string equals its original, so for strings the length tells, not the comparison. */
function isCopy(item: unknown, admitted: unknown): boolean {
  return typeof item === 'string' ? item.length >= SLICE_CHARS_MIN : typeof item === 'object' && item !== admitted;
}

/** Whether a holder of `value` could change it under our feet. */
export function isMutable(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return !(value instanceof Stamped) || isMutable(value.value);
}

/** A deep copy of a value that `admit` let in. */
export function cloneValue(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(cloneValue);
  if (isPlainObject(value)) {
    const copy: Record<string, unknown> = {};
    for (const field of Object.keys(value)) setField(copy, field, cloneValue(value[field]));
    return copy;
  }
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [cloneValue(key), cloneValue(item)]));
  if (value instanceof Set) return new Set([...value].map(cloneValue));
  if (value instanceof Stamped) return new Stamped(cloneValue(value.value), value.stampMs);
  // Date and typed arrays.
  return structuredClone(value);
}

/** Memory of a key beside what every cell costs. */
export function keyBytes(key: CanonicalKey): number {
  return typeof key === 'string' ? 16 + key.length : 8;
}

/**
 * Roughly what a value costs in memory. Looks at no more than a few items of each collection, so it is
 * cheap for values of any size.
 */
export function approximateBytes(value: unknown, depth = 0): number {
  switch (typeof value) {
    case 'string':
      return 16 + value.length;
    case 'number':
      // Integers of 32 bits live in the pointer.
      return (value | 0) === value ? 0 : 16;
    case 'bigint':
      return 24;
    case 'object':
      return value === null || depth > 8 ? 0 : approximateObjectBytes(value, depth);
    default:
      return 0;
  }
}

const LOOKED_AT_MAX = 16;

function approximateObjectBytes(value: object, depth: number): number {
  if (value instanceof Stamped) return 40 + approximateBytes(value.value, depth + 1);
  if (ArrayBuffer.isView(value)) return 120 + value.byteLength;
  if (Array.isArray(value)) return 32 + meanOf(value, value.length, depth, 8);
  if (value instanceof Map) return 200 + meanOf(value.values(), value.size, depth, 64);
  if (value instanceof Set) return 200 + meanOf(value, value.size, depth, 48);
  if (value instanceof Date) return 80;
  let bytes = 24;
  for (const field of Object.keys(value))
    bytes += 8 + approximateBytes((value as Record<string, unknown>)[field], depth + 1);
  return bytes;
}

function meanOf(items: Iterable<unknown>, count: number, depth: number, slotBytes: number): number {
  if (count === 0) return 0;
  let looked = 0;
  let bytes = 0;
  for (const item of items) {
    bytes += approximateBytes(item, depth + 1);
    if (++looked === LOOKED_AT_MAX) break;
  }
  return count * (slotBytes + bytes / looked);
}
