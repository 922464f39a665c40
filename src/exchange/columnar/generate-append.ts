import type { ColumnSlot, PlanSlots } from './column-tree.ts';
import { walkSlots } from './column-tree.ts';
import { CompiledCache } from './compiled-cache.ts';
import { COLUMN_STRING_MAX, type FieldPlan, KIND, type NestedPlan, planToText, TAG, usesCells } from './plan.ts';
import { isPlainDate, isPlainPrototype } from './shape.ts';

/** What the code needs of its group. */
export interface AppendTarget {
  rows: number;
  capacity: number;
  /** About what the rows will take when written. */
  bytes: number;
  /** Makes room for another row. */
  grow(): void;
  /** The cells of one record; throws, with nothing changed, when one of them cannot be sent. Gives their bytes. */
  appendCells(cells: readonly unknown[]): number;
}

/** Adds the record to the columns. False, with nothing changed, when it does not fit the plan. */
export type Append = (record: unknown) => boolean;

type AppendFactory = (slots: readonly ColumnSlot[], target: AppendTarget, helpers: typeof HELPERS) => Append;

const HELPERS = {
  prototypeOf: Object.getPrototypeOf as (value: object) => object | null,
  objectPrototype: Object.prototype,
  isPlainPrototype,
  isPlainDate,
  getTime: Date.prototype.getTime,
  isArray: Array.isArray,
  asInt64: (value: bigint) => BigInt.asIntN(64, value),
};

const factories = new CompiledCache<AppendFactory>();

/** Code for one plan. All groups of that plan, in all encoders of the thread, share it. */
export function createAppend(plan: FieldPlan, slots: readonly ColumnSlot[], target: AppendTarget): Append {
  const factory = factories.get(planToText(plan), () => compile(plan));
  return factory(slots, target, HELPERS);
}

function compile(plan: FieldPlan): AppendFactory {
  return new Function('slots', 'target', 'h', new AppendSource(plan).toString()) as AppendFactory;
}

/**
 * The body of the factory. A record is first read and judged whole, then written, so that one that
 * does not fit leaves no trace. Fields are read before the prototype is asked for: by then V8 knows
 * the hidden class, and the question costs nothing.
 */
class AppendSource {
  private readonly locals: string[] = [];
  private readonly checks: string[] = [];
  private readonly writes: string[] = [];
  private slotCount = 0;
  private labels = 0;
  private bytes = 0;

  constructor(private readonly plan: FieldPlan) {
    this.position(walkSlots(plan), 'record', 'row');
  }

  toString(): string {
    const constants = Array.from({ length: this.slotCount }, (_, i) => `const c${i} = slots[${i}];`);
    const hasCells = usesCells(this.plan);
    return [
      '"use strict";',
      `const { ${Object.keys(HELPERS).join(', ')} } = h;`,
      ...constants,
      'return function append(record) {',
      ...(this.locals.length > 0 ? [`let ${this.locals.join(', ')};`] : []),
      ...(hasCells ? ['let cells;'] : []),
      ...this.checks,
      'const row = target.rows;',
      'if (row === target.capacity) target.grow();',
      `let bytes = ${this.bytes};`,
      ...(hasCells ? ['if (cells !== undefined) bytes += target.appendCells(cells);'] : []),
      ...this.writes,
      'target.rows = row + 1;',
      'target.bytes += bytes;',
      'return true;',
      '};',
    ].join('\n');
  }

  /** `index`: where this row's entry lies in full columns. */
  private position(slots: PlanSlots, value: string, index: string): void {
    for (const slot of [slots.tags, slots.nestedRows, ...slots.columns]) {
      if (slot !== undefined) this.slotCount = Math.max(this.slotCount, slot + 1);
    }
    if (slots.tags === undefined) this.single(slots, value, index);
    else this.tagged(slots, value, index);
  }

  private single(slots: PlanSlots, value: string, index: string): void {
    const { kinds, nested } = slots.plan;
    if (nested !== undefined) {
      const names = this.readFields(nested, value, 'return false;');
      for (const [i, child] of slots.children.entries()) this.position(child, names[i] as string, index);
      return;
    }
    if (kinds === KIND.cell) {
      this.checks.push(keepCell(value));
      this.bytes += 1;
      return;
    }
    const tag = 31 - Math.clz32(kinds);
    this.checks.push(`if (!(${TESTS[tag]?.(value)})) return false;`);
    this.store(slots, tag, value, index, this.writes);
  }

  private tagged(slots: PlanSlots, value: string, index: string): void {
    const { kinds, nested } = slots.plan;
    const t = this.local('t');
    const alternatives = SIMPLE_TAGS.filter((tag) => (kinds & (1 << tag)) !== 0).map(
      (tag) => `${TESTS[tag]?.(value)} ? ${tag} : `,
    );
    this.checks.push(`${t} = ${alternatives.join('')}-1;`);
    const nestedWrites: string[] = [];
    if (nested !== undefined) this.nestedAlternative(slots, nested, { value, t, writes: nestedWrites });
    if ((kinds & KIND.cell) !== 0) {
      this.checks.push(`if (${t} < 0) { ${t} = ${TAG.cell}; ${keepCell(value)} }`);
    } else {
      this.checks.push(`if (${t} < 0) return false;`);
    }
    this.writes.push(`c${slots.tags}.data[${index}] = ${t};`);
    this.bytes += 1;
    for (const tag of SIMPLE_TAGS) {
      const slot = slots.columns[tag];
      if (slot === undefined) continue;
      const stored: string[] = [];
      this.store(slots, tag, value, `c${slot}.length++`, stored);
      this.writes.push(`if (${t} === ${tag}) { ${stored.join(' ')} }`);
    }
    if (nested !== undefined) {
      this.writes.push(
        `if (${t} === ${TAG.nested}) { const n${slots.nestedRows} = c${slots.nestedRows}.length++;`,
        ...nestedWrites,
        '}',
      );
    }
  }

  /** Other fields than the plan's make it no nested value; other kinds in the same fields call for a wider plan. */
  private nestedAlternative(
    slots: PlanSlots,
    nested: NestedPlan,
    { value, t, writes }: { readonly value: string; readonly t: string; readonly writes: string[] },
  ): void {
    const label = `l${this.labels++}`;
    this.checks.push(`${label}: if (${t} < 0 && typeof ${value} === "object" && ${value} !== null) {`);
    const names = this.readFields(nested, value, `break ${label};`);
    const outer = this.writes.splice(0);
    for (const [i, child] of slots.children.entries()) {
      this.position(child, names[i] as string, `n${slots.nestedRows}`);
    }
    writes.push(...this.writes.splice(0));
    this.writes.push(...outer);
    this.checks.push(`${t} = ${TAG.nested};`, '}');
  }

  /** Reads all fields into locals and makes sure that there are no others. */
  private readFields(nested: NestedPlan, value: string, otherwise: string): readonly string[] {
    const { names, fields } = nested;
    const locals = fields.map(() => this.local('v'));
    if (names === undefined) {
      this.checks.push(`if (!isArray(${value}) || ${value}.length !== ${fields.length}) { ${otherwise} }`);
      this.checks.push(locals.map((name, i) => `${name} = ${value}[${i}];`).join(' '));
      return locals;
    }
    const p = this.local('p');
    const k = this.local('k');
    this.checks.push(
      `if (typeof ${value} !== "object" || ${value} === null) { ${otherwise} }`,
      ...locals.map((name, i) => `${name} = ${value}[${JSON.stringify(names[i])}];`),
      `${p} = prototypeOf(${value});`,
      `if (${p} !== objectPrototype && !isPlainPrototype(${p})) { ${otherwise} }`,
      `${k} = 0;`,
      `for (const f in ${value}) {`,
      `switch (${k}) {`,
      ...names.map((name, i) => `case ${i}: ${k} = f === ${JSON.stringify(name)} ? ${i + 1} : -1; break;`),
      `default: ${k} = -1;`,
      '}',
      `if (${k} < 0) break;`,
      '}',
      `if (${k} !== ${names.length}) { ${otherwise} }`,
    );
    return locals;
  }

  private store(slots: PlanSlots, tag: number, value: string, index: string, writes: string[]): void {
    const column = `c${slots.columns[tag]}`;
    switch (tag) {
      case TAG.boolean:
        writes.push(`${column}.data[${index}] = ${value} ? 1 : 0;`);
        this.bytes += 1;
        return;
      case TAG.date:
        this.storeNumber(column, `getTime.call(${value})`, index, writes);
        return;
      case TAG.number:
        this.storeNumber(column, value, index, writes);
        return;
      case TAG.string:
        writes.push(`${column}.put(${index}, ${value}); bytes += ${value}.length;`);
        this.bytes += 1;
        return;
      default:
        writes.push(`${column}.data[${index}] = ${value};`);
        this.bytes += 8;
    }
  }

  private storeNumber(column: string, value: string, index: string, writes: string[]): void {
    // In a block of its own: a dense column counts as it goes, so the index may be taken only once.
    writes.push(
      `{ const at = ${index}, number = ${value};`,
      `if (${column}.isDouble) ${column}.doubles[at] = number;`,
      `else if ((number | 0) === number && (number !== 0 || 1 / number > 0)) ${column}.integers[at] = number;`,
      `else ${column}.widen(at, number); }`,
    );
    this.bytes += 4;
  }

  private local(prefix: string): string {
    const name = `${prefix}${this.locals.length}`;
    this.locals.push(name);
    return name;
  }
}

const TESTS: Readonly<Record<number, (value: string) => string>> = {
  [TAG.undefined]: (value) => `${value} === undefined`,
  [TAG.null]: (value) => `${value} === null`,
  [TAG.boolean]: (value) => `typeof ${value} === "boolean"`,
  [TAG.number]: (value) => `typeof ${value} === "number"`,
  [TAG.bigint]: (value) => `typeof ${value} === "bigint" && asInt64(${value}) === ${value}`,
  [TAG.date]: (value) => `isPlainDate(${value})`,
  [TAG.string]: (value) => `typeof ${value} === "string" && ${value}.length <= ${COLUMN_STRING_MAX}`,
};

/** Strings and numbers before the rest: most values are. */
const SIMPLE_TAGS = [TAG.string, TAG.number, TAG.undefined, TAG.null, TAG.boolean, TAG.bigint, TAG.date] as const;

function keepCell(value: string): string {
  return `(cells ??= []).push(${value});`;
}
