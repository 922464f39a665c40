import { assert } from '../kernel/assert.ts';
import type { CurrentKey } from './heap-cells.ts';
import type { HeapTable } from './heap-table.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { PackedSums } from './ports.ts';
import type { SumColumn, Unpack } from './sum-column.ts';

/** Records in a row that have another form, after which no more are looked at. */
const MISSES_MAX = 64;

/**
 * Running sums whose records say nothing but the key and the sum: `[word, 3]`, `{ word, count: 3 }`. They are kept
 * as numbers in a column, and a record is made when somebody reads it: that spares the collector a record a key,
 * and the processor the way to it.
 *
 *   P1. A key that begins with NUL is never in the column: what a caller has as the key is then not its canonical form.
 *   P2. All sums of a table stand for records of one form, the one that was seen first.
 */
export class HeapSums implements PackedSums {
  usable = true;
  private misses = 0;
  private column: SumColumn | undefined;

  constructor(
    private readonly table: HeapTable,
    private readonly current: CurrentKey,
    /** Of the sum in the record. */
    private readonly field: string | number,
  ) {
    this.column = table.column;
  }

  add(key: string | number, amount: number): number | undefined {
    const { column } = this;
    return column === undefined ? undefined : column.add(key, amount);
  }

  begin(key: string | number, record: unknown): boolean {
    const { table } = this;
    if (startsWithNul(key)) return false;
    if (table.findCell(key) !== undefined || table.column?.has(key) === true) return false;
    const sum = this.sumIn(record, key);
    if (sum === undefined) return false;
    this.columnOf().put(key, sum);
    this.current.version++;
    return true;
  }

  unpack(key: string | number, sum: number): unknown {
    return this.columnOf().unpack(key, sum);
  }

  pack(): void {
    const { table, current } = this;
    const { key } = current;
    if ((typeof key !== 'string' && typeof key !== 'number') || startsWithNul(key)) return;
    const cell = table.findCell(key);
    if (cell === undefined) return;
    const sum = this.sumIn(cell.value, key);
    if (sum === undefined) {
      // Only as long as nothing is packed: no more records of the form are needed, but those that are stay.
      if (++this.misses > MISSES_MAX) this.usable = false;
      return;
    }
    this.misses = 0;
    // What is seen of the value does not change.
    table.packCell(this.columnOf(), cell, sum);
    this.current.version++;
  }

  /** Of a table whose form is known. */
  private columnOf(): SumColumn {
    this.column ??= this.table.column;
    assert(this.column !== undefined, 'P2: a table of sums has a form');
    return this.column;
  }

  /** The sum in a key's record, when that has the table's form, or one that can become it. */
  private sumIn(value: unknown, key: CanonicalKey): number | undefined {
    if (typeof value !== 'object' || value === null) return undefined;
    if (Array.isArray(value)) return this.sumInPair(value, key);
    const { field, table } = this;
    const fields = fieldsOf(value, field);
    if (fields === undefined) return undefined;
    const [first, second] = fields;
    const sumFirst = first === field;
    const record = value as Record<string, unknown>;
    const sum = record[sumFirst ? first : second];
    if (typeof sum !== 'number' || !Object.is(record[sumFirst ? second : first], key)) return undefined;
    const form = JSON.stringify([first, second]);
    if (table.packedForm === undefined) table.packAs(form, unpackFields(first, second, sumFirst));
    return table.packedForm === form ? sum : undefined;
  }

  /** A position is of a tuple, a name of an object: only those come out of `sum` as what they were. */
  private sumInPair(pair: readonly unknown[], key: CanonicalKey): number | undefined {
    const { field, table } = this;
    if (pair.length !== 2 || (field !== 0 && field !== 1)) return undefined;
    const sum = pair[field];
    if (typeof sum !== 'number' || !Object.is(pair[1 - field], key)) return undefined;
    if (table.packedForm === undefined) {
      table.packAs(PAIR, field === 0 ? (one, total) => [total, one] : (one, total) => [one, total]);
    }
    return table.packedForm === PAIR ? sum : undefined;
  }
}

const PAIR = 'pair';

function startsWithNul(key: string | number): boolean {
  return typeof key === 'string' && key.charCodeAt(0) === 0;
}

/** The two fields of a plain object of two, one of them `field`. */
function fieldsOf(record: object, field: string | number): readonly [string, string] | undefined {
  const names = Object.keys(record);
  const [first, second] = names;
  if (names.length !== 2 || first === undefined || second === undefined) return undefined;
  if (first !== field && second !== field) return undefined;
  // `__proto__` in a literal is no field.
  if (Object.getPrototypeOf(record) !== Object.prototype || names.includes('__proto__')) return undefined;
  return [first, second];
}

function unpackFields(first: string, second: string, sumFirst: boolean): Unpack {
  return sumFirst ? (key, sum) => ({ [first]: sum, [second]: key }) : (key, sum) => ({ [first]: key, [second]: sum });
}
