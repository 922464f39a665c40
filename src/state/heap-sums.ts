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

  begin(key: string | number, record: unknown): boolean {
    const { table } = this;
    // A text that begins with NUL has another canonical form.
    if (typeof key === 'string' && key.charCodeAt(0) === 0) return false;
    if (table.find(key) !== undefined) return false;
    const sum = this.sumIn(record, key);
    if (sum === undefined) return false;
    table.insert(key, sum);
    return true;
  }

  unpack(key: string | number, sum: number): unknown {
    return (this.table.unpack as Unpack)(key, sum);
  }

  pack(): void {
    const { table, current } = this;
    const cell = current.key === undefined ? undefined : table.find(current.key);
    if (cell === undefined || typeof cell.value === 'number') return;
    const sum = this.sumIn(cell.value, cell.key);
    if (sum === undefined) {
      // Only as long as nothing is packed: P1 needs no more records of the form, but those that are stay.
      if (++this.misses > MISSES_MAX) this.usable = false;
      return;
    }
    this.misses = 0;
    // As the value: what is seen of it does not change, so neither does the cell's epoch, but a view may hold the record itself.
    cell.value = sum;
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
