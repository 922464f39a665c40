/**
 * A batch, all numbers little-endian, all parts and columns beginning at multiples of eight bytes:
 *
 *   u32  records
 *   u8   version
 *   u8   number of parts, 2 zero bytes
 *   one byte per record, the number of its part (only when there are several parts)
 *   the parts
 *
 * A part of columns: u32 records, u32 bytes of its cells, u32 bytes of its plan, the plan (UTF-8),
 * the columns in the order of the plan, then the cells as a batch of the row codec: for each record
 * that has cells, a list of them. A part of rows: 0xffffffff, u32 bytes, a batch of the row codec.
 */
export const FORMAT_VERSION = 1;
export const HEAD_BYTES = 8;
export const ROWS_GROUP = 0xffff_ffff;
export const PARTS_MAX = 9;
