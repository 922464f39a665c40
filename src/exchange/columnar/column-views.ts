import type { PlanSlots } from './column-tree.ts';
import type { NumberView, PayloadReader, StringsView } from './payload-reader.ts';
import { TAG, tagsOf } from './plan.ts';

/** The columns of a batch as they lie in it, by slot; the counters of nested rows have no column. */
export type ColumnView = Uint8Array | NumberView | BigInt64Array | StringsView | undefined;

/**
 * Reads the columns of a plan. What it returns agrees with itself: dense columns are as long as the
 * tags say, so code that follows the tags stays within them.
 */
export function readColumns(reader: PayloadReader, slots: PlanSlots, rows: number): readonly ColumnView[] {
  const views: ColumnView[] = [];
  readPosition(reader, slots, rows, views);
  return views;
}

function readPosition(reader: PayloadReader, slots: PlanSlots, rows: number, views: ColumnView[]): void {
  const tags = slots.tags === undefined ? undefined : reader.readTags(rows, tagsOf(slots.plan.kinds));
  const counts = tags === undefined ? undefined : countTags(tags);
  if (tags !== undefined) views.push(tags);
  for (const [tag, slot] of slots.columns.entries()) {
    if (slot !== undefined) views.push(readColumn(reader, tag, counts === undefined ? rows : (counts[tag] as number)));
  }
  if (slots.nestedRows !== undefined) views.push(undefined);
  const nestedRows = counts === undefined ? rows : (counts[TAG.nested] as number);
  for (const child of slots.children) readPosition(reader, child, nestedRows, views);
}

function readColumn(reader: PayloadReader, tag: number, count: number): ColumnView {
  switch (tag) {
    case TAG.boolean:
      return reader.readBooleans(count);
    case TAG.bigint:
      return reader.readBigints(count);
    case TAG.string:
      return reader.readStrings(count);
    default:
      return reader.readNumbers(count);
  }
}

function countTags(tags: Uint8Array): readonly number[] {
  const counts = new Array<number>(TAG.cell + 1).fill(0);
  for (const tag of tags) counts[tag] = (counts[tag] as number) + 1;
  return counts;
}
