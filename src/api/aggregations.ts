import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { show } from './arguments.ts';
import type { ReduceFunction } from './functions.ts';

/**
 * `sum`, `min`, `max`, `minBy`, `maxBy` as reduce functions. As in Flink, `sum`, `min` and `max` keep the
 * other fields of the key's first record; `minBy` and `maxBy` keep the whole record that has the value.
 */
export type FieldRef = string | number;

export type Aggregation = 'sum' | 'min' | 'max' | 'minBy' | 'maxBy';

type Numeric = number | bigint;

export function aggregate(aggregation: Aggregation, field: FieldRef): ReduceFunction<unknown> {
  checkField(aggregation, field);
  const read = reader(aggregation, field);
  const write = typeof field === 'number' ? withPosition(field) : withName(field);
  switch (aggregation) {
    case 'sum':
      return (current, value) => write(current, add(aggregation, field, read(current), read(value)));
    case 'min':
      return (current, value) => {
        const candidate = read(value);
        return candidate < read(current) ? write(current, candidate) : current;
      };
    case 'max':
      return (current, value) => {
        const candidate = read(value);
        return candidate > read(current) ? write(current, candidate) : current;
      };
    case 'minBy':
      return (current, value) => (read(value) < read(current) ? value : current);
    case 'maxBy':
      return (current, value) => (read(value) > read(current) ? value : current);
  }
}

function checkField(aggregation: Aggregation, field: FieldRef): void {
  const position = typeof field === 'number' && Number.isInteger(field) && field >= 0;
  if (position || (typeof field === 'string' && field !== '')) return;
  throw new InvalidArgumentError(
    `${aggregation}() needs the position in a tuple (0, 1, …) or the name of a field, not ${show(field)}`,
  );
}

function reader(aggregation: Aggregation, field: FieldRef): (record: unknown) => Numeric {
  return (record) => {
    const value = (record as Record<FieldRef, unknown> | null | undefined)?.[field];
    if (typeof value === 'number' || typeof value === 'bigint') return value;
    throw new MillraceError(
      'USER_CODE',
      `${aggregation}(${JSON.stringify(field)}): the field is not a number but ${show(value)}`,
    );
  };
}

function add(aggregation: Aggregation, field: FieldRef, a: Numeric, b: Numeric): Numeric {
  if (typeof a === 'number' && typeof b === 'number') return a + b;
  if (typeof a === 'bigint' && typeof b === 'bigint') return a + b;
  throw new MillraceError('USER_CODE', `${aggregation}(${JSON.stringify(field)}): cannot mix number and bigint`);
}

function withPosition(position: number): (record: unknown, value: Numeric) => unknown {
  return (record, value) => {
    const copy = (record as readonly unknown[]).slice();
    copy[position] = value;
    return copy;
  };
}

function withName(name: string): (record: unknown, value: Numeric) => unknown {
  return (record, value) => ({ ...(record as object), [name]: value });
}
