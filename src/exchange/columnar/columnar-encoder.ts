import { InvalidArgumentError } from '../../kernel/errors.ts';
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
/** Far from the longest string of V8, which a column of strings must not reach. */
const BATCH_BYTES_MAX = 128 * 1024 * 1024;

/** Puts batches together before they are copied out; used and left empty within `finish`. */
const writer = new PayloadWriter();

/** A run of records that went the same way: into the group, or by rows (undefined). */
interface Run {
  readonly group: ColumnGroup | undefined;
  readonly records: number;
}

export class ColumnarEncoder implements RecordEncoder {
  records = 0;
  bytes = HEAD_BYTES;
  private groups: ColumnGroup[] = [];
  /** Where the last record went, which is where the next one most likely goes too. */
  private current: ColumnGroup | undefined;
  private currentSince = 0;
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

  append(record: unknown): void {
    if (this.bytes > BATCH_BYTES_MAX) throw new InvalidArgumentError(`a batch exceeds ${BATCH_BYTES_MAX} bytes`);
    const { current } = this;
    if (current !== undefined) {
      const bytes = current.append(record);
      if (bytes > 0) {
        this.records++;
        this.bytes += bytes;
        return;
      }
    }
    this.appendElsewhere(record);
  }

  finish(): Uint8Array {
    this.endRun();
    const used = this.groups.filter((group) => group.rows > 0);
    const rows = this.rows !== undefined && this.rows.records > 0 ? this.rows.finish() : undefined;
    const parts = used.length + (rows === undefined ? 0 : 1);
    writer.writeUint32(this.records);
    writer.writeUint32(FORMAT_VERSION | (parts << 8));
    if (parts > 1) this.writeOrder(used);
    for (const group of used) group.write(writer);
    if (rows !== undefined) {
      writer.writeUint32(ROWS_GROUP);
      writer.writeUint32(rows.length);
      writer.writeBytes(rows);
      writer.align();
    }
    this.clear();
    return writer.take();
  }

  private appendElsewhere(record: unknown): void {
    for (const group of this.groups) {
      if (group !== this.current && this.appendTo(group, record)) return;
    }
    const group = this.groupFor(record);
    if (group !== undefined && this.appendTo(group, record)) return;
    this.rows ??= this.createRows();
    const before = this.rows.bytes;
    this.rows.append(record);
    this.switchTo(undefined);
    this.records++;
    this.bytes += this.rows.bytes - before;
  }

  private appendTo(group: ColumnGroup, record: unknown): boolean {
    const isFirst = group.rows === 0;
    const bytes = group.append(record);
    if (bytes === 0) return false;
    this.switchTo(group);
    this.records++;
    this.bytes += bytes + (isFirst ? group.headBytes : 0);
    return true;
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

  private switchTo(group: ColumnGroup | undefined): void {
    if (group === this.current) return;
    this.endRun();
    this.current = group;
  }

  private endRun(): void {
    const records = this.records - this.currentSince;
    if (records > 0) this.runs.push({ group: this.current, records });
    this.currentSince = this.records;
  }

  /** One byte per record: the number of its part. */
  private writeOrder(used: readonly ColumnGroup[]): void {
    writer.reserve(this.records);
    for (const { group, records } of this.runs) {
      const part = group === undefined ? used.length : used.indexOf(group);
      writer.uint8.fill(part, writer.position, writer.position + records);
      writer.position += records;
    }
    writer.align();
  }

  private clear(): void {
    // Its buffer is large, and regular streams need it for their first records only.
    if (this.rows?.records === 0 && this.runs.every(({ group }) => group !== undefined)) this.rows = undefined;
    for (const group of this.groups) group.clear();
    this.groups = this.groups.filter((group) => this.fits(group));
    // The next batch begins where most of its records will go.
    if (this.current !== undefined && !this.groups.includes(this.current)) this.current = undefined;
    this.current ??= this.groups[0];
    this.records = 0;
    this.currentSince = 0;
    this.runs.length = 0;
    this.bytes = HEAD_BYTES + (this.current?.headBytes ?? 0);
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
