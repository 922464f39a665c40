import { BigintColumn, BooleanColumn, type Column, NumberColumn, TagColumn } from './columns.ts';
import { type FieldPlan, hasOneKind, KIND, TAG, tagsOf } from './plan.ts';
import type { PayloadWriter } from './payload-writer.ts';
import { StringColumn } from './string-column.ts';

/** What generated code may reach of a column: its data and, where it is dense, its length. */
export type ColumnSlot = Column | RowCounter;

/** How many rows went on to the fields of a nested value that shares its position with other kinds. */
export interface RowCounter {
  length: number;
}

/**
 * The columns of one position and of those nested in it. A position with one kind has one column with
 * an entry per row; one with several has tags, and its columns are dense.
 */
export class ColumnTree {
  private plan: FieldPlan | undefined;
  private tags: TagColumn | undefined;
  /** By tag. */
  private readonly columns: (Column | undefined)[] = [];
  private readonly nestedRows: RowCounter = { length: 0 };
  private children: ColumnTree[] = [];

  /** Makes room for a plan that includes the present one. `rows` have been added; none are lost. */
  adopt(plan: FieldPlan, rows: number, capacity: number): void {
    const before = this.plan;
    const nestedRows = this.tags === undefined ? rows : this.nestedRows.length;
    if (!hasOneKind(plan.kinds) && this.tags === undefined) this.split(before, rows, capacity);
    if (this.tags !== undefined) this.tags.tags = tagsOf(plan.kinds);
    for (const tag of tagsOf(plan.kinds)) {
      if (this.columns[tag] !== undefined) continue;
      const column = createColumn(tag);
      column?.grow(capacity);
      this.columns[tag] = column;
    }
    const fields = plan.nested?.fields ?? [];
    if (this.children.length === 0) this.children = fields.map(() => new ColumnTree());
    const rowsOfChildren = before?.nested === undefined ? 0 : nestedRows;
    this.children.forEach((child, i) => {
      child.adopt(fields[i] as FieldPlan, rowsOfChildren, capacity);
    });
    this.plan = plan;
  }

  /** In the order in which {@link walkSlots} numbers them. */
  slots(): readonly ColumnSlot[] {
    const slots: ColumnSlot[] = [];
    if (this.tags !== undefined) slots.push(this.tags);
    for (const column of this.columns) if (column !== undefined) slots.push(column);
    if (this.tags !== undefined && this.children.length > 0) slots.push(this.nestedRows);
    for (const child of this.children) slots.push(...child.slots());
    return slots;
  }

  grow(capacity: number): void {
    this.tags?.grow(capacity);
    for (const column of this.columns) column?.grow(capacity);
    for (const child of this.children) child.grow(capacity);
  }

  write(writer: PayloadWriter, rows: number): void {
    const { tags } = this;
    tags?.write(writer, rows);
    for (const column of this.columns) column?.write(writer, tags === undefined ? rows : column.length);
    for (const child of this.children) child.write(writer, tags === undefined ? rows : this.nestedRows.length);
  }

  clear(rows: number): void {
    const { tags } = this;
    for (const column of this.columns) column?.clear(tags === undefined ? rows : column.length);
    for (const child of this.children) child.clear(tags === undefined ? rows : this.nestedRows.length);
    this.nestedRows.length = 0;
  }

  /** Whether narrower columns would have done for these rows, or other ones served them better. */
  misfits(rows: number): boolean {
    const { plan, tags } = this;
    if (plan === undefined || rows === 0) return false;
    if (tags === undefined) return plan.kinds === KIND.cell || this.children.some((child) => child.misfits(rows));
    const counts = new Array<number>(TAG.cell + 1).fill(0);
    for (let i = 0; i < rows; i++) counts[tags.data[i] as number] = (counts[tags.data[i] as number] as number) + 1;
    if (counts.filter((count) => count > 0).length === 1) return true;
    const nested = counts[TAG.nested] as number;
    if ((plan.kinds & KIND.nested) !== 0 && (counts[TAG.cell] as number) > nested) return true;
    return this.children.some((child) => child.misfits(nested));
  }

  /** From one kind to several: the rows so far get their tag, and what was a full column becomes a dense one. */
  private split(before: FieldPlan | undefined, rows: number, capacity: number): void {
    const tags = new TagColumn();
    tags.grow(capacity);
    if (before !== undefined) {
      tags.data.fill(tagsOf(before.kinds)[0] as number, 0, rows);
      for (const column of this.columns) if (column !== undefined) column.length = rows;
      this.nestedRows.length = before.nested === undefined ? 0 : rows;
    }
    this.tags = tags;
  }
}

function createColumn(tag: number): Column | undefined {
  switch (tag) {
    case TAG.boolean:
      return new BooleanColumn();
    case TAG.number:
    case TAG.date:
      return new NumberColumn();
    case TAG.bigint:
      return new BigintColumn();
    case TAG.string:
      return new StringColumn();
    default:
      return undefined;
  }
}

/** One position of a plan with the numbers of its slots, which are counted through the whole plan. */
export interface PlanSlots {
  readonly plan: FieldPlan;
  readonly tags: number | undefined;
  /** By tag. */
  readonly columns: readonly (number | undefined)[];
  /** The {@link RowCounter}. */
  readonly nestedRows: number | undefined;
  readonly children: readonly PlanSlots[];
}

export function walkSlots(plan: FieldPlan): PlanSlots {
  let next = 0;
  const walk = (at: FieldPlan): PlanSlots => {
    const dense = !hasOneKind(at.kinds);
    const tags = dense ? next++ : undefined;
    const columns: (number | undefined)[] = [];
    for (const tag of tagsOf(at.kinds)) if (hasColumn(tag)) columns[tag] = next++;
    const nestedRows = dense && at.nested !== undefined ? next++ : undefined;
    const children = (at.nested?.fields ?? []).map(walk);
    return { plan: at, tags, columns, nestedRows, children };
  };
  return walk(plan);
}

export function hasColumn(tag: number): boolean {
  return tag >= TAG.boolean && tag <= TAG.string;
}
