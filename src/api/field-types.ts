/** Which fields of a record `sum`, `min` and `max` may take, and what becomes of the record's type. */

type IndexOf<Key> = Key extends `${infer Index extends number}` ? Index : never;

type NumericPositions<T extends readonly unknown[]> = {
  [K in keyof T]: [T[K]] extends [number] ? IndexOf<K> : [T[K]] extends [bigint] ? IndexOf<K> : never;
}[number];

type NumericNames<T> = {
  [K in keyof T & string]-?: [T[K]] extends [number] ? K : [T[K]] extends [bigint] ? K : never;
}[keyof T & string];

/** Positions of a tuple, or names of an object's fields, that hold a number (or a bigint) in every record. */
export type NumericField<T> = [T] extends [readonly unknown[]]
  ? number extends T['length']
    ? [T[number]] extends [number] | [bigint]
      ? number
      : never
    : NumericPositions<T>
  : NumericNames<T>;

type Widen<N> = N extends number ? number : N extends bigint ? bigint : N;

/** The record after summing: the literal type of the field (`1`) has become `number`. */
export type WithSum<T, F> = {
  [K in keyof T]: K extends F | `${F & number}` ? Widen<T[K]> : T[K];
};
