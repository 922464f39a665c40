import { type PlanSlots, walkSlots } from './column-tree.ts';
import type { ColumnView } from './column-views.ts';
import { CompiledCache } from './compiled-cache.ts';
import { type FieldPlan, planToText, TAG, tagsOf, usesCells } from './plan.ts';

/** The values that went by rows: for each record that has any, in order. */
export type Cells = readonly (readonly unknown[])[];

/** Builds `rows` records into the first places of `out` and gives how many records had cells; -1 when the columns disagree. */
export type ReadRecords = (rows: number, columns: readonly ColumnView[], cells: Cells, out: unknown[]) => number;

const readers = new CompiledCache<ReadRecords>();

/** Code for one plan: an object literal per record, so that all records of a shape share one hidden class. */
export function createRead(plan: FieldPlan): ReadRecords {
  return readers.get(
    planToText(plan),
    () => new Function('rows', 'columns', 'cells', 'out', sourceOf(plan)) as ReadRecords,
  );
}

function sourceOf(plan: FieldPlan): string {
  const constants: string[] = [];
  const body: string[] = [];
  const checks: string[] = [];
  const result = position(walkSlots(plan), 'i', { constants, body, checks });
  const hasCells = usesCells(plan);
  return [
    '"use strict";',
    'let used = 0;',
    ...constants,
    'for (let i = 0; i < rows; i++) {',
    ...(hasCells ? ['let cell = 0, own;'] : []),
    ...body,
    `out[i] = ${result};`,
    ...(hasCells ? ['if (own !== undefined && cell !== own.length) return -1;'] : []),
    '}',
    ...checks,
    'return used;',
  ].join('\n');
}

interface Source {
  readonly constants: string[];
  /** Per record. */
  readonly body: string[];
  /** At the end. */
  readonly checks: string[];
}

const NEXT_CELL = '(own ??= cells[used++])[cell++]';

/** The expression of the value; what it needs beforehand goes into the body. */
function position(slots: PlanSlots, index: string, source: Source): string {
  const { constants, body, checks } = source;
  for (const [tag, slot] of slots.columns.entries()) {
    if (slot === undefined) continue;
    if (tag === TAG.string) {
      constants.push(
        `const t${slot} = columns[${slot}].text, l${slot} = columns[${slot}].lengths;`,
        `let p${slot} = 0;`,
      );
      checks.push(`if (p${slot} !== t${slot}.length) return -1;`);
    } else constants.push(`const c${slot} = columns[${slot}];`);
  }
  if (slots.tags === undefined) {
    const [tag] = tagsOf(slots.plan.kinds) as readonly [number];
    if (tag !== TAG.cell) return value(slots, tag, index, source);
    // Cells are taken in the order of the positions, before any expression is evaluated.
    const name = `y${body.length}`;
    body.push(`const ${name} = ${NEXT_CELL};`);
    return name;
  }
  return tagged(slots, index, source);
}

function tagged(slots: PlanSlots, index: string, source: Source): string {
  const { constants, body } = source;
  const name = `x${slots.tags}`;
  constants.push(`const k${slots.tags} = columns[${slots.tags}];`);
  body.push(`let ${name};`, `switch (k${slots.tags}[${index}]) {`);
  for (const tag of tagsOf(slots.plan.kinds)) {
    if (tag === TAG.undefined) continue;
    // Dense: each column has a position of its own.
    const slot = tag === TAG.nested ? slots.nestedRows : slots.columns[tag];
    if (slot !== undefined) constants.push(`let d${slot} = 0;`);
    body.push(`case ${tag}: {`);
    if (slot !== undefined) body.push(`const n${slot} = d${slot}++;`);
    const expression = tag === TAG.cell ? NEXT_CELL : value(slots, tag, `n${slot}`, source);
    body.push(`${name} = ${expression};`, 'break;', '}');
  }
  body.push('}');
  return name;
}

function value(slots: PlanSlots, tag: number, index: string, source: Source): string {
  const slot = slots.columns[tag];
  switch (tag) {
    case TAG.null:
      return 'null';
    case TAG.boolean:
      return `c${slot}[${index}] === 1`;
    case TAG.date:
      return `new Date(c${slot}[${index}])`;
    case TAG.string:
      return `t${slot}.substring(p${slot}, p${slot} += l${slot}[${index}])`;
    case TAG.nested:
      return nestedValue(slots, index, source);
    default:
      return `c${slot}[${index}]`;
  }
}

function nestedValue(slots: PlanSlots, index: string, source: Source): string {
  const names = slots.plan.nested?.names;
  const values = slots.children.map((child) => position(child, index, source));
  if (names === undefined) return `[${values.join(', ')}]`;
  return `{ ${values.map((expression, i) => `${JSON.stringify(names[i])}: ${expression}`).join(', ')} }`;
}
