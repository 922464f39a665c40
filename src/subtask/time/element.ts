/**
 * What goes with the record that is on its way through a task, beside the record itself. A register, not
 * a wrapper: a record takes the same shape with and without event time, and operators that do not care
 * see only records.
 *
 * Whoever sets a field for a call downstream puts the old value back afterwards.
 */
export interface Element {
  /** Milliseconds since the epoch; {@link NO_TIMESTAMP} when the record has none. */
  timestampMs: number;
  /** Which input of a two-input operator it came from. */
  input: number;
}

export const NO_TIMESTAMP = Number.NaN;

export function newElement(): Element {
  return { timestampMs: NO_TIMESTAMP, input: 0 };
}

/** Before the first watermark, and at the end of the data. */
export const MIN_WATERMARK = Number.NEGATIVE_INFINITY;
export const MAX_WATERMARK = Number.POSITIVE_INFINITY;
