import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { RecordEncoder } from '../record-codec.ts';
import { ColumnTree } from './column-tree.ts';
import { type Append, type AppendTarget, createAppend } from './generate-append.ts';
import type { PayloadWriter } from './payload-writer.ts';
import { type FieldPlan, leavesOf, LEAVES_MAX, planToText } from './plan.ts';
import { mergePlans } from './shape.ts';

const INITIAL_ROWS = 64;
/**
 * Columns grow by at most so many rows at a time, and not at all in a batch of so many bytes. Together
 * with the longest string of a column this keeps its text below the longest string of V8.
 */
const GROWTH_ROWS_MAX = 8_192;
const BATCH_BYTES_MAX = 64 * 1024 * 1024;
/** Columns that one huge batch made grow are not kept. */
const KEPT_ROWS_MAX = 16_384;
/** Of its description and the heads of its columns. */
const BYTES_PER_LEAF = 16;

/** The records of one shape in the batch being gathered. */
export class ColumnGroup implements AppendTarget {
  rows = 0;
  capacity = INITIAL_ROWS;
  bytes: number;
  append: Append;
  /** Batches without a record of this shape, and batches in a row that other columns would have served better. */
  idleBatches = 0;
  misfitBatches = 0;
  private tree = new ColumnTree();
  private cells: RecordEncoder | undefined;
  private planText: string;

  constructor(
    readonly key: string,
    private plan: FieldPlan,
    private readonly createCells: () => RecordEncoder,
  ) {
    this.planText = planToText(plan);
    this.bytes = this.headBytes;
    this.tree.adopt(plan, 0, this.capacity);
    this.append = createAppend(plan, this.tree.slots(), this);
  }

  private get headBytes(): number {
    return this.planText.length + leavesOf(this.plan) * BYTES_PER_LEAF;
  }

  /** Takes in what else the positions may hold. False when the columns are as wide as that already, or would be too many. */
  widen(seen: FieldPlan): boolean {
    const plan = mergePlans(this.plan, seen, { firm: true });
    const planText = planToText(plan);
    if (planText === this.planText || leavesOf(plan) > LEAVES_MAX) return false;
    this.tree.adopt(plan, this.rows, this.capacity);
    this.plan = plan;
    this.planText = planText;
    this.append = createAppend(plan, this.tree.slots(), this);
    return true;
  }

  grow(): void {
    if (this.bytes > BATCH_BYTES_MAX) throw new InvalidArgumentError(`a batch exceeds ${BATCH_BYTES_MAX} bytes`);
    this.capacity += Math.min(this.capacity * 3, GROWTH_ROWS_MAX);
    this.tree.grow(this.capacity);
  }

  appendCells(cells: readonly unknown[]): number {
    this.cells ??= this.createCells();
    const before = this.cells.bytes;
    this.cells.append(cells);
    return this.cells.bytes - before;
  }

  /** See `payload-reader.ts` for the layout. */
  write(writer: PayloadWriter): void {
    const cells = this.cells?.finish();
    writer.writeUint32(this.rows);
    writer.writeUint32(cells?.length ?? 0);
    const length = writer.position;
    writer.writeUint32(0);
    writer.writeText(this.planText, 'utf8');
    writer.uint32[length >> 2] = writer.position - length - 4;
    writer.align();
    this.tree.write(writer, this.rows);
    if (cells !== undefined) writer.writeBytes(cells);
    writer.align();
  }

  /** Empty again; afterwards `misfitBatches` counts the batch that ends here. */
  clear(): void {
    this.idleBatches = this.rows === 0 ? this.idleBatches + 1 : 0;
    if (this.rows > 0) this.misfitBatches = this.tree.misfits(this.rows) ? this.misfitBatches + 1 : 0;
    this.tree.clear(this.rows);
    this.rows = 0;
    this.bytes = this.headBytes;
    if (this.capacity > KEPT_ROWS_MAX) {
      this.capacity = INITIAL_ROWS;
      this.tree = new ColumnTree();
      this.tree.adopt(this.plan, 0, this.capacity);
      this.append = createAppend(this.plan, this.tree.slots(), this);
    }
  }
}
