import type { Cell } from './cell-group.ts';
import type { CurrentKey } from './heap-cells.ts';
import type { HeapTable } from './heap-table.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { PackedSums } from './ports.ts';

/** Makes of a key and a sum the record that stands for both. */
export type Unpack = (key: CanonicalKey, sum: number) => unknown;

/** Records in a row that have another form, after which no more are looked at. */
const MISSES_MAX = 64;

/**
 * Running sums whose records say nothing but the key and the sum: `[word, 3]`, `{ word, count: 3 }`. Their cells
 * hold the sum alone, a number, which is changed in place; a record is made when somebody reads it. So a
 * record a key spares the collector, and a sum is found two steps nearer.
 *
 *   P1. In a table with `unpack` a cell that holds a number is packed; its record is `unpack(key, number)`.
 *   P2. All packed cells of a table have the one form that was seen first.
 */
export class HeapSums implements PackedSums {
  usable = true;
  private misses = 0;

  constructor(
    private readonly table: HeapTable,
    private readonly current: CurrentKey,
    /** Of the sum in the record. */
    private readonly field: string | number,
  ) {}

  add(key: string | number, amount: number): number | undefined {
    const { table } = this;
    const cell = table.find(key);
    if (cell === undefined) return undefined;
    const { value } = cell;
    if (typeof value !== 'number') return undefined;
    const sum = value + amount;
    if (cell.epoch <= table.epochs.needed) table.touch(cell);
    else cell.epoch = table.epochs.current;
    cell.value = sum;
    return sum;
  }

  unpack(key: string | number, sum: number): unknown {
    return (this.table.unpack as Unpack)(key, sum);
  }

  pack(): void {
    const { table, current } = this;
    const cell = current.key === undefined ? undefined : table.find(current.key);
    if (cell === undefined || typeof cell.value === 'number') return;
    const sum = this.packable(cell);
    if (sum === undefined) {
      // Only as long as nothing is packed: P1 needs no more records of the form, but those that are stay.
      if (++this.misses > MISSES_MAX) this.usable = false;
      return;
    }
    this.misses = 0;
    // As the value: what is seen of it does not change, so neither does the cell's epoch, but a view may hold the record itself.
    cell.value = sum;
  }

  /** The sum in the cell's record, when that has the table's form, or one that can become it. */
  private packable({ key, value }: Cell): number | undefined {
    if (typeof value !== 'object' || value === null) return undefined;
    const fields = fieldsOf(value, this.field);
    if (fields === undefined) return undefined;
    const [first, second] = fields;
    const sumFirst = first === String(this.field);
    const record = value as Record<string, unknown>;
    const sum = record[sumFirst ? first : second];
    if (typeof sum !== 'number' || !Object.is(record[sumFirst ? second : first], key)) return undefined;
    const form = JSON.stringify([Array.isArray(value), first, second]);
    if (this.table.packedForm === undefined)
      this.table.packAs(form, unpackFor(Array.isArray(value), first, second, sumFirst));
    return this.table.packedForm === form ? sum : undefined;
  }
}

/** The two fields of a plain record of two, one of them `field`. */
function fieldsOf(record: object, field: string | number): readonly [string, string] | undefined {
  const names = Object.keys(record);
  const [first, second] = names;
  if (names.length !== 2 || first === undefined || second === undefined) return undefined;
  if (first !== String(field) && second !== String(field)) return undefined;
  // A position is of a tuple, a name of an object: only those come out of `sum` as what they were.
  if (Array.isArray(record) !== (typeof field === 'number')) return undefined;
  if (Array.isArray(record)) return record.length === 2 ? [first, second] : undefined;
  // `__proto__` in a literal is no field.
  if (Object.getPrototypeOf(record) !== Object.prototype || names.includes('__proto__')) return undefined;
  return [first, second];
}

function unpackFor(isArray: boolean, first: string, second: string, sumFirst: boolean): Unpack {
  if (isArray) return sumFirst ? (key, sum) => [sum, key] : (key, sum) => [key, sum];
  return sumFirst ? (key, sum) => ({ [first]: sum, [second]: key }) : (key, sum) => ({ [first]: key, [second]: sum });
}
