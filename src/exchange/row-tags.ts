/**
 * First byte of each value in the row format.
 *
 *   0x00-0x7f  the integers 0 to 127
 *   0x80-0x9f  ASCII string of 0 to 31 bytes
 *   0xa0-0xbf  object of the batch's shape 0 to 31
 *   others     below
 */
export const SHORT_STRING = 0x80;
export const SHORT_STRING_MAX = 31;
export const SHAPED_OBJECT = 0xa0;
export const SHAPES_MAX = 32;

export const TAG = {
  null: 0xc0,
  undefined: 0xc1,
  true: 0xc2,
  false: 0xc3,
  /** Zigzag varint, 32 bit. */
  int: 0xc4,
  float: 0xc5,
  /** Sign byte, length, magnitude little-endian. */
  bigint: 0xc6,
  ascii: 0xc7,
  utf8: 0xc8,
  /** Strings with lone surrogates, which UTF-8 cannot hold. */
  utf16: 0xc9,
  array: 0xca,
  /** Defines the next shape (field names), then one object of it. */
  newShape: 0xcb,
  /** Field names in place, for batches with more than 32 shapes. */
  object: 0xcc,
  date: 0xcd,
  bytes: 0xce,
  map: 0xcf,
  set: 0xd0,
  /** Rare built-ins (Error, RegExp, other typed arrays, boxed values) as V8 serialises them. */
  v8: 0xd1,
} as const;

/** Deeper nesting than this is refused: it is nearly always a cycle. */
export const DEPTH_MAX = 256;
