import { types } from 'node:util';
import {
  COLUMN_STRING_MAX,
  type FieldPlan,
  isFieldName,
  KIND,
  leavesOf,
  LEAVES_MAX,
  NESTED_DEPTH_MAX,
  type NestedPlan,
  TUPLE_LENGTH_MAX,
} from './plan.ts';

/**
 * Equal for records that may share columns: objects with the same fields in the same order, arrays of
 * the same length, plain values. Undefined for a record that only the row codec can take.
 */
export function shapeKeyOf(record: unknown): string | undefined {
  switch (typeof record) {
    case 'undefined':
    case 'boolean':
    case 'number':
    case 'bigint':
    case 'string':
      return 'plain';
    case 'object': {
      if (record === null) return 'plain';
      if (Array.isArray(record)) return record.length <= TUPLE_LENGTH_MAX ? `[${record.length}` : undefined;
      if (isPlainDate(record)) return 'plain';
      if (!hasPlainPrototype(record)) return undefined;
      const names = Object.keys(record);
      return names.length <= LEAVES_MAX ? JSON.stringify(names) : undefined;
    }
    default:
      return undefined;
  }
}

/** How a group of records like this one would be laid out; undefined when columns cannot hold it. */
export function rootPlanOf(record: unknown): FieldPlan | undefined {
  const plan = planOf(record, 0);
  if ((plan.kinds & KIND.cell) !== 0 || leavesOf(plan) > LEAVES_MAX) return undefined;
  return plan;
}

function planOf(value: unknown, depth: number): FieldPlan {
  switch (typeof value) {
    case 'undefined':
      return NOTHING;
    case 'boolean':
      return BOOLEAN;
    case 'number':
      return NUMBER;
    case 'bigint':
      return BigInt.asIntN(64, value) === value ? BIGINT : CELL;
    case 'string':
      return value.length <= COLUMN_STRING_MAX ? STRING : CELL;
    case 'object':
      if (value === null) return NOTHING;
      return isPlainDate(value) ? DATE : planOfNested(value, depth);
    default:
      return CELL;
  }
}

function planOfNested(value: object, depth: number): FieldPlan {
  if (depth >= NESTED_DEPTH_MAX) return CELL;
  if (Array.isArray(value)) {
    if (value.length === 0 || value.length > TUPLE_LENGTH_MAX) return CELL;
    // Not `map`, which would skip holes; they are sent as undefined.
    const fields = Array.from(value as readonly unknown[], (element) => planOf(element, depth + 1));
    return { kinds: KIND.nested, nested: { names: undefined, fields } };
  }
  if (!hasPlainPrototype(value)) return CELL;
  const names = Object.keys(value);
  if (names.length === 0 || names.length > LEAVES_MAX || !names.every(isFieldName)) return CELL;
  const fields = names.map((name) => planOf((value as Record<string, unknown>)[name], depth + 1));
  return { kinds: KIND.nested, nested: { names, fields } };
}

const plain = (kinds: number): FieldPlan => ({ kinds, nested: undefined });
// Both at once: a column of only one of them would have no bytes at all.
const NOTHING = plain(KIND.undefined | KIND.null);
const BOOLEAN = plain(KIND.boolean);
const NUMBER = plain(KIND.number);
const BIGINT = plain(KIND.bigint);
const DATE = plain(KIND.date);
const STRING = plain(KIND.string);
const CELL = plain(KIND.cell);

/**
 * A plan for everything that either plan can hold. Where two shapes meet in one field, a plan still
 * being learnt (`firm: false`) gives the field up to cells, while one that already has columns keeps its shape and
 * leaves the other to cells.
 */
export function mergePlans(a: FieldPlan, b: FieldPlan, options: { readonly firm: boolean }): FieldPlan {
  const kinds = a.kinds | b.kinds;
  if ((kinds & KIND.nested) === 0) return { kinds, nested: undefined };
  if (a.nested !== undefined && b.nested !== undefined) {
    const nested = mergeNested(a.nested, b.nested, options);
    if (nested !== undefined) return { kinds, nested };
  } else if (a.nested !== undefined) {
    return { kinds, nested: a.nested };
  } else if ((a.kinds & KIND.cell) === 0) {
    return { kinds, nested: b.nested };
  }
  if (options.firm && a.nested !== undefined) return { kinds: kinds | KIND.cell, nested: a.nested };
  return { kinds: (kinds & ~KIND.nested) | KIND.cell, nested: undefined };
}

function mergeNested(a: NestedPlan, b: NestedPlan, options: { readonly firm: boolean }): NestedPlan | undefined {
  if (a.fields.length !== b.fields.length) return undefined;
  if (a.names === undefined ? b.names !== undefined : !a.names.every((name, i) => name === b.names?.[i])) {
    return undefined;
  }
  return { names: a.names, fields: a.fields.map((field, i) => mergePlans(field, b.fields[i] as FieldPlan, options)) };
}

/** A Date whose class says so; what else pretends to be one is the row codec's business. */
export function isPlainDate(value: unknown): value is Date {
  return types.isDate(value) && Object.getPrototypeOf(value) === Date.prototype;
}

function hasPlainPrototype(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || isPlainPrototype(prototype as object | null);
}

const plainPrototypes = new WeakSet<object>();

/**
 * Whether objects with this prototype are sent as their fields: those without one and instances of
 * classes written in JavaScript, down to `Object`. Built-ins, and classes that extend them, have
 * contents besides their fields.
 */
export function isPlainPrototype(prototype: object | null): boolean {
  if (prototype === null) return true;
  if (plainPrototypes.has(prototype)) return true;
  for (let p: object | null = prototype; p !== Object.prototype; p = Object.getPrototypeOf(p) as object | null) {
    if (p === null) break;
    const maker: unknown = Object.getOwnPropertyDescriptor(p, 'constructor')?.value;
    if (typeof maker !== 'function' || NATIVE.test(Function.prototype.toString.call(maker))) return false;
    // Generated code lists fields with `for in`, which would show these too.
    if (Object.keys(p).length > 0) return false;
  }
  plainPrototypes.add(prototype);
  return true;
}

const NATIVE = /\{\s*\[native code\]\s*\}$/;
