import type { RecordEncoder } from '../record-codec.ts';
import { ColumnGroup } from './column-group.ts';
import { FORMAT_VERSION, HEAD_BYTES, ROWS_GROUP } from './format.ts';
import { PayloadWriter } from './payload-writer.ts';
import { rootPlanOf, shapeKeyOf } from './shape.ts';
import { ShapeLearner } from './shape-learner.ts';

/** Shapes with columns at a time; records of further ones go by rows. */
const GROUPS_MAX = 8;
/** A shape not seen for so many batches makes way for a new one. */
const IDLE_BATCHES_MAX = 16;
/** Columns that do not fit for so many batches in a row are learnt anew; each time twice as many. */
const MISFIT_BATCHES = 32;
const PATIENCE_MAX = 64;

/** Puts batches together before they are copied out; used and left empty within `finish`. */
const writer = new PayloadWriter();

/** A run of records that went the same way: into the group, or by rows (undefined). */
interface Run {
  readonly group: ColumnGroup | undefined;
  records: number;
}

/**
 * Gathers a batch in groups of records of the same shape. The group of the last record is the current
 * one and tried first; it alone counts what it takes, so that the usual append is one call.
 */
export class ColumnarEncoder implements RecordEncoder {
  private groups: ColumnGroup[] = [];
  private current: ColumnGroup | undefined;
  /** Rows that the current group had when it became that. */
  private currentSince = 0;
  /** All but those that the current group has taken since. */
  private recordsBefore = 0;
  /** All but those of the current group. */
  private bytesElsewhere = HEAD_BYTES;
  private readonly runs: Run[] = [];
  private rows: RecordEncoder | undefined;
  private readonly learner = new ShapeLearner();
  /** By shape: misfitting batches to put up with. */
  private readonly patience = new Map<string, number>();

  constructor(
    private readonly createRows: () => RecordEncoder,
    /** `learn: false`: everything goes by rows. */
    private readonly options: { readonly learn: boolean },
  ) {}

  get records(): number {
    return this.current === undefined ? this.recordsBefore : this.recordsBefore + this.current.rows - this.currentSince;
  }

  /** An estimate: how well the columns pack shows only when the batch is finished. */
  get bytes(): number {
    return this.current === undefined ? this.bytesElsewhere : this.bytesElsewhere + this.current.bytes;
  }

  append(record: unknown): void {
    if (this.current === undefined || !this.current.append(record)) this.appendElsewhere(record);
  }

  finish(): Uint8Array {
    this.switchTo(undefined);
    const used = this.groups.filter((group) => group.rows > 0);
    const rows = this.rows !== undefined && this.rows.records > 0 ? this.rows.finish() : undefined;
    const parts = used.length + (rows === undefined ? 0 : 1);
    // Should memory have run out in the middle of another batch.
    writer.position = 0;
    writer.writeUint32(this.recordsBefore);
    writer.writeUint32(FORMAT_VERSION | (parts << 8));
    if (parts > 1) this.writeOrder(used);
    for (const group of used) group.write(writer);
    if (rows !== undefined) {
      writer.writeUint32(ROWS_GROUP);
      writer.writeUint32(rows.length);
      writer.writeBytes(rows);
      writer.align();
    }
    this.clear(rows !== undefined);
    return writer.take();
  }

  /** For a record that the current group, if any, has not taken. */
  private appendElsewhere(record: unknown): void {
    const tried = this.current;
    for (const group of this.groups) {
      if (group !== tried && this.appendTo(group, record)) return;
    }
    const group = this.groupFor(record);
    if (group !== undefined && this.appendTo(group, record)) return;
    this.switchTo(undefined);
    this.appendRow(record);
  }

  private appendTo(group: ColumnGroup, record: unknown): boolean {
    this.switchTo(group);
    return group.append(record);
  }

  private appendRow(record: unknown): void {
    this.rows ??= this.createRows();
    const before = this.rows.bytes;
    this.rows.append(record);
    this.bytesElsewhere += this.rows.bytes - before;
    this.recordsBefore++;
    const last = this.runs.at(-1);
    if (last !== undefined && last.group === undefined) last.records++;
    else this.runs.push({ group: undefined, records: 1 });
  }

  private switchTo(group: ColumnGroup | undefined): void {
    const left = this.current;
    if (group === left) return;
    if (left !== undefined) {
      const records = left.rows - this.currentSince;
      this.recordsBefore += records;
      if (records > 0) this.runs.push({ group: left, records });
      if (left.rows > 0) this.bytesElsewhere += left.bytes;
    }
    if (group !== undefined && group.rows > 0) this.bytesElsewhere -= group.bytes;
    this.current = group;
    this.currentSince = group?.rows ?? 0;
  }

  /** A group widened to hold the record, or a new one once its shape is frequent. */
  private groupFor(record: unknown): ColumnGroup | undefined {
    if (!this.options.learn || !this.learner.curious) return undefined;
    const key = shapeKeyOf(record);
    const plan = key === undefined ? undefined : rootPlanOf(record);
    if (key === undefined || plan === undefined) {
      this.learner.missed();
      return undefined;
    }
    const known = this.groups.find((group) => group.key === key);
    if (known !== undefined) {
      if (known.widen(plan)) return known;
      this.learner.missed();
      return undefined;
    }
    if (this.groups.length >= GROUPS_MAX) this.dropIdleGroup();
    const learnt = this.learner.observe(key, plan);
    if (learnt === undefined || this.groups.length >= GROUPS_MAX) return undefined;
    const group = new ColumnGroup(key, learnt, this.createRows);
    this.groups.push(group);
    return group;
  }

  private dropIdleGroup(): void {
    const idle = this.groups.findIndex((group) => group.rows === 0 && group.idleBatches >= IDLE_BATCHES_MAX);
    if (idle >= 0) this.groups.splice(idle, 1);
  }

  /** One byte per record: the number of its part. */
  private writeOrder(used: readonly ColumnGroup[]): void {
    writer.reserve(this.recordsBefore);
    for (const { group, records } of this.runs) {
      const part = group === undefined ? used.length : used.indexOf(group);
      writer.uint8.fill(part, writer.position, writer.position + records);
      writer.position += records;
    }
    writer.align();
  }

  private clear(usedRows: boolean): void {
    // Its buffer is large, and regular streams need it for their first records only.
    if (!usedRows) this.rows = undefined;
    const mostUsed = this.groups.reduce<ColumnGroup | undefined>(
      (most, group) => (most === undefined || group.rows > most.rows ? group : most),
      undefined,
    );
    for (const group of this.groups) group.clear();
    this.groups = this.groups.filter((group) => this.fits(group));
    this.recordsBefore = 0;
    this.bytesElsewhere = HEAD_BYTES;
    this.runs.length = 0;
    if (mostUsed !== undefined && this.groups.includes(mostUsed)) this.switchTo(mostUsed);
  }

  /** A group that is dropped is learnt anew from the next records of its shape. */
  private fits({ key, misfitBatches }: ColumnGroup): boolean {
    const patience = this.patience.get(key) ?? MISFIT_BATCHES;
    if (misfitBatches < patience) return true;
    if (this.patience.size >= PATIENCE_MAX) this.patience.clear();
    this.patience.set(key, patience * 2);
    return false;
  }
}
