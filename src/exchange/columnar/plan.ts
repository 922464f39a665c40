import { CorruptError } from '../../kernel/errors.ts';

/**
 * What one position of a shape (a field, an element, or the whole record) holds: the kinds of value
 * seen there. One kind makes a plain column; several make a column of tags beside one dense column
 * per kind.
 */
export interface FieldPlan {
  /** Bits of {@link KIND}. */
  readonly kinds: number;
  /** Present exactly when `kinds` has `KIND.nested`. */
  readonly nested: NestedPlan | undefined;
}

/** An object with these fields in this order, or an array of this length: then `names` is undefined. */
export interface NestedPlan {
  readonly names: readonly string[] | undefined;
  readonly fields: readonly FieldPlan[];
}

export const KIND = {
  undefined: 1,
  null: 2,
  boolean: 4,
  number: 8,
  /** Of 64 bit; larger ones are cells. */
  bigint: 16,
  date: 32,
  /** Of at most {@link COLUMN_STRING_MAX} characters; longer ones are cells. */
  string: 64,
  nested: 128,
  /** Anything else, by the row codec. */
  cell: 256,
} as const;

/** A tag is the number of the kind's bit. */
export const TAG = { undefined: 0, null: 1, boolean: 2, number: 3, bigint: 4, date: 5, string: 6, nested: 7, cell: 8 };

const ALL_KINDS = 511;

/** Columns are for many short strings: a batch of them stays far below the longest string of V8. */
export const COLUMN_STRING_MAX = 8_192;
export const NESTED_DEPTH_MAX = 3;
export const TUPLE_LENGTH_MAX = 16;
/** Positions of a whole shape: beyond this, generated code grows long and columns short. */
export const LEAVES_MAX = 64;

export function hasOneKind(kinds: number): boolean {
  return (kinds & (kinds - 1)) === 0;
}

/** The tags of the kinds, ascending. */
export function tagsOf(kinds: number): readonly number[] {
  const tags: number[] = [];
  for (let tag = 0; tag <= TAG.cell; tag++) if ((kinds & (1 << tag)) !== 0) tags.push(tag);
  return tags;
}

export function leavesOf(plan: FieldPlan): number {
  return plan.nested === undefined ? 1 : plan.nested.fields.reduce((sum, field) => sum + leavesOf(field), 1);
}

export function usesCells({ kinds, nested }: FieldPlan): boolean {
  return (kinds & KIND.cell) !== 0 || (nested?.fields.some(usesCells) ?? false);
}

/** Equal for equal plans; it is what a batch says of its columns. */
export function planToText(plan: FieldPlan): string {
  return JSON.stringify(toJson(plan));
}

type PlanJson = readonly [number] | readonly [number, number | readonly string[], readonly PlanJson[]];

function toJson({ kinds, nested }: FieldPlan): PlanJson {
  return nested === undefined ? [kinds] : [kinds, nested.names ?? nested.fields.length, nested.fields.map(toJson)];
}

/** Throws `CORRUPT` for what {@link planToText} does not write. */
export function planFromText(text: string): FieldPlan {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new CorruptError('the description of a batch cannot be read', { cause: error });
  }
  const plan = fromJson(json, 0);
  if (leavesOf(plan) > LEAVES_MAX) throw malformed('too many fields');
  return plan;
}

function fromJson(json: unknown, depth: number): FieldPlan {
  if (!Array.isArray(json)) throw malformed('a field is no list');
  const [kinds, names, fields] = json as readonly unknown[];
  if (typeof kinds !== 'number' || !Number.isInteger(kinds) || kinds <= 0 || kinds > ALL_KINDS) {
    throw malformed('unknown kinds of value');
  }
  const isNested = (kinds & KIND.nested) !== 0;
  if (json.length !== (isNested ? 3 : 1)) throw malformed('a field has a wrong number of parts');
  // Columns of nothing at all would let a few bytes claim any number of records.
  if (kinds === KIND.undefined || kinds === KIND.null) throw malformed('a field without values');
  if (!isNested) return { kinds, nested: undefined };
  if (depth >= NESTED_DEPTH_MAX || !Array.isArray(fields) || fields.length === 0) throw malformed('wrong nesting');
  const plans = fields.map((field) => fromJson(field, depth + 1));
  if (names === plans.length) return { kinds, nested: { names: undefined, fields: plans } };
  if (!Array.isArray(names) || names.length !== plans.length || !names.every(isFieldName)) {
    throw malformed('wrong field names');
  }
  return { kinds, nested: { names, fields: plans } };
}

/**
 * Names that a generated object literal can hold in the order given: no indexes, which come first in
 * any object, and not the one that would set the prototype.
 */
export function isFieldName(name: unknown): name is string {
  return typeof name === 'string' && name !== '__proto__' && !INDEX.test(name);
}

const INDEX = /^(0|[1-9][0-9]*)$/;

function malformed(what: string): CorruptError {
  return new CorruptError(`the description of a batch is malformed: ${what}`);
}
