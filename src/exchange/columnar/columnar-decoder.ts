import { CorruptError, MillraceError } from '../../kernel/errors.ts';
import type { RecordDecoder } from '../record-codec.ts';
import { type PlanSlots, walkSlots } from './column-tree.ts';
import { readColumns } from './column-views.ts';
import { FORMAT_VERSION, PARTS_MAX, ROWS_GROUP } from './format.ts';
import type { Cells, ReadRecords } from './generate-read.ts';
import { PayloadReader } from './payload-reader.ts';
import { type FieldPlan, planFromText } from './plan.ts';

/** Plans met so far; one more than a healthy stream has is no reason to keep all. */
const PLANS_MAX = 256;

interface KnownPlan {
  readonly slots: PlanSlots;
  readonly read: ReadRecords;
}

export class ColumnarDecoder implements RecordDecoder {
  private readonly plans = new Map<string, KnownPlan>();

  constructor(
    private readonly rows: RecordDecoder,
    private readonly createRead: (plan: FieldPlan) => ReadRecords,
  ) {}

  decode(payload: Uint8Array): readonly unknown[] {
    try {
      return this.read(new PayloadReader(payload));
    } catch (error) {
      if (error instanceof MillraceError) throw error;
      // A list of cells that is too short, a blob that V8 refuses: the bytes are at fault, not the program.
      throw new CorruptError('a batch of records cannot be decoded', { cause: error });
    }
  }

  private read(reader: PayloadReader): readonly unknown[] {
    const count = reader.readUint32();
    const head = reader.readUint32();
    const version = head & 0xff;
    if (version !== FORMAT_VERSION) {
      throw new CorruptError(`a batch has the format version ${version}; this process reads version ${FORMAT_VERSION}`);
    }
    const parts = head >>> 8;
    if (parts > PARTS_MAX) throw new CorruptError(`a batch claims ${parts} parts`);
    const order = parts > 1 ? reader.readBytes(count) : undefined;
    if (order !== undefined) reader.align();
    const decoded = Array.from({ length: parts }, () => this.readPart(reader));
    if (reader.remaining !== 0) throw new CorruptError(`a batch has ${reader.remaining} bytes too many`);
    const records = order === undefined ? (decoded[0] ?? []) : interleave(decoded, order);
    if (records.length !== count) throw new CorruptError(`a batch of ${count} records holds ${records.length}`);
    return records;
  }

  private readPart(reader: PayloadReader): readonly unknown[] {
    const rows = reader.readUint32();
    if (rows === ROWS_GROUP) {
      const records = this.rows.decode(reader.readBytes(reader.readUint32()));
      reader.align();
      return records;
    }
    const cellBytes = reader.readUint32();
    const { slots, read } = this.planOf(reader.readBytes(reader.readUint32()));
    reader.align();
    const columns = readColumns(reader, slots, rows);
    const cells = cellBytes === 0 ? NO_CELLS : (this.rows.decode(reader.readBytes(cellBytes)) as Cells);
    reader.align();
    // At its final size: letting it grow costs a third of the decoding. The columns have shown that the rows exist.
    const records = new Array<unknown>(rows);
    const used = read(rows, columns, cells, records);
    if (used !== cells.length) throw new CorruptError('a batch holds other values by rows than its columns say');
    return records;
  }

  private planOf(text: Buffer): KnownPlan {
    // As a key any text will do, and this one is the quickest to make.
    const key = text.toString('latin1');
    let known = this.plans.get(key);
    if (known === undefined) {
      const plan = planFromText(text.toString('utf8'));
      known = { slots: walkSlots(plan), read: this.createRead(plan) };
      if (this.plans.size >= PLANS_MAX) this.plans.clear();
      this.plans.set(key, known);
    }
    return known;
  }
}

const NO_CELLS: Cells = [];

function interleave(parts: readonly (readonly unknown[])[], order: Uint8Array): readonly unknown[] {
  const next = new Array<number>(parts.length).fill(0);
  const records: unknown[] = [];
  for (const part of order) {
    const from = parts[part];
    const at = next[part];
    if (from === undefined || at === undefined || at >= from.length) {
      throw new CorruptError('a batch orders its records in a way that does not match its parts');
    }
    records.push(from[at]);
    next[part] = at + 1;
  }
  if (next.some((at, i) => at !== parts[i]?.length)) {
    throw new CorruptError('a batch orders its records in a way that does not match its parts');
  }
  return records;
}
