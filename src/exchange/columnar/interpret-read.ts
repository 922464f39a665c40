import { type PlanSlots, walkSlots } from './column-tree.ts';
import type { ColumnView } from './column-views.ts';
import type { Cells, ReadRecords } from './generate-read.ts';
import type { NumberView, StringsView } from './payload-reader.ts';
import { type FieldPlan, TAG, tagsOf } from './plan.ts';

/**
 * Reads columns without generated code, for processes that forbid it; others may send them columns all
 * the same. Also the reference that the generated code is tested against.
 */
export function interpretRead(plan: FieldPlan): ReadRecords {
  const slots = walkSlots(plan);
  return (rows, columns, cells, out) => new Interpreter(columns, cells).read(slots, rows, out);
}

class Interpreter {
  /** By slot: how far a dense column has been read. */
  private readonly positions: number[] = [];
  /** By slot: how far a column's text has been read. */
  private readonly textPositions: number[] = [];
  private used = 0;
  private own: readonly unknown[] | undefined;
  private cell = 0;

  constructor(
    private readonly columns: readonly ColumnView[],
    private readonly cells: Cells,
  ) {}

  read(slots: PlanSlots, rows: number, out: unknown[]): number {
    for (let row = 0; row < rows; row++) {
      this.own = undefined;
      this.cell = 0;
      out[row] = this.position(slots, row);
      if (this.own !== undefined && this.cell !== (this.own as readonly unknown[]).length) return -1;
    }
    const isReadToItsEnd = (column: ColumnView, slot: number) =>
      typeof column !== 'object' || !('text' in column) || column.text.length === (this.textPositions[slot] ?? 0);
    return this.columns.every(isReadToItsEnd) ? this.used : -1;
  }

  private position(slots: PlanSlots, row: number): unknown {
    if (slots.tags === undefined) return this.value(slots, tagsOf(slots.plan.kinds)[0] as number, row);
    const tag = (this.columns[slots.tags] as Uint8Array)[row] as number;
    const slot = tag === TAG.nested ? slots.nestedRows : slots.columns[tag];
    if (slot === undefined) return this.value(slots, tag, row);
    const at = this.positions[slot] ?? 0;
    this.positions[slot] = at + 1;
    return this.value(slots, tag, at);
  }

  private value(slots: PlanSlots, tag: number, at: number): unknown {
    const column = this.columns[slots.columns[tag] ?? -1];
    switch (tag) {
      case TAG.undefined:
        return undefined;
      case TAG.null:
        return null;
      case TAG.boolean:
        return (column as Uint8Array)[at] === 1;
      case TAG.bigint:
        return (column as BigInt64Array)[at];
      case TAG.date:
        return new Date((column as NumberView)[at] as number);
      case TAG.string: {
        const slot = slots.columns[tag] as number;
        const { text, lengths } = column as StringsView;
        const from = this.textPositions[slot] ?? 0;
        const to = from + (lengths[at] as number);
        this.textPositions[slot] = to;
        return text.substring(from, to);
      }
      case TAG.nested: {
        const values = slots.children.map((child) => this.position(child, at));
        const names = slots.plan.nested?.names;
        return names === undefined ? values : Object.fromEntries(names.map((name, i) => [name, values[i]]));
      }
      case TAG.cell:
        this.own ??= this.cells[this.used++];
        return (this.own as readonly unknown[])[this.cell++];
      default:
        return (column as NumberView)[at];
    }
  }
}
