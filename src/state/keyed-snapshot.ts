import { MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import type { PendingSnapshot } from './ports.ts';
import { encodeSection, type StateCompression } from './section.ts';
import { SnapshotObject } from './snapshot-object.ts';
import type { CellsView, StateCells } from './state-cells.ts';
import type { StateTable } from './state-table.ts';
import { ValueWriter } from './value-codec.ts';

/** What a snapshot needs of the world. */
export interface SnapshotDeps {
  readonly objects: ObjectStore;
  /** Lets waiting work run: called between slices of serialisation. */
  readonly yieldNow: () => Promise<void>;
  readonly memoryThresholdBytes: number;
  readonly compression: StateCompression;
}

/**
 * A slice of serialisation ends after this many cells or bytes, whichever comes first: one to three
 * milliseconds, so the longest pause does not depend on how large a key group is.
 */
const SLICE_CELLS = 4_096;
const SLICE_BYTES = 512 * 1024;

interface PendingCells {
  readonly table: StateTable;
  readonly cells: StateCells;
  readonly view: CellsView;
}

/**
 * Keyed state as of one cut, written one key group after the other while processing goes on.
 *
 * A section's content: for each state with cells in the group, its name, its kind, a record of
 * properties (none yet; time-to-live will be one), then key and value of each cell up to an end mark.
 */
export class KeyedSnapshot implements PendingSnapshot<KeyedStateHandle> {
  /** By key group, counted from the first of the range. */
  private readonly groups: readonly PendingCells[][];
  private phase: 'fixed' | 'writing' | 'ended' = 'fixed';

  constructor(
    private readonly deps: SnapshotDeps,
    private readonly range: KeyGroupRange,
    private readonly objectKey: string,
    tables: readonly StateTable[],
    cut: number,
  ) {
    this.groups = Array.from({ length: range.last - range.first + 1 }, (_, group) => fixGroup(tables, group, cut));
  }

  async write(signal: AbortSignal): Promise<{ readonly handles: readonly KeyedStateHandle[]; readonly bytes: number }> {
    if (this.phase !== 'fixed') throw new MillraceError('CLOSED', 'the snapshot was written or discarded before');
    this.phase = 'writing';
    const object = new SnapshotObject(this.deps.objects, this.objectKey, this.deps.memoryThresholdBytes);
    try {
      return await this.writeGroups(object, signal);
    } catch (error) {
      await object.abort();
      throw error;
    } finally {
      this.release();
    }
  }

  discard(): void {
    this.release();
  }

  private release(): void {
    this.phase = 'ended';
    for (const group of this.groups) for (const { cells, view } of group.splice(0)) cells.drop(view);
  }

  private async writeGroups(object: SnapshotObject, signal: AbortSignal) {
    const writer = new ValueWriter(64 * 1024);
    const offsets = [0];
    for (const [i, group] of this.groups.entries()) {
      if (group.length > 0) {
        writer.reset();
        for (const pending of group) await this.writeCells(writer, pending, signal);
        // Views of this group are gone: changes of its cells cost nothing again.
        group.length = 0;
        await object.append(await encodeSection(writer.toBytes(), this.range.first + i, this.deps.compression));
        await this.pause(signal);
      }
      offsets.push(object.size);
    }
    if (object.size === 0) return { handles: [], bytes: 0 };
    const handle = await object.finish(signal);
    const { first, last } = this.range;
    return { handles: [{ firstKeyGroup: first, lastKeyGroup: last, offsets, handle }], bytes: object.size };
  }

  private async writeCells(
    writer: ValueWriter,
    { table, cells, view }: PendingCells,
    signal: AbortSignal,
  ): Promise<void> {
    writer.write(table.name);
    writer.write(table.kind);
    writer.write({});
    const walk = { view };
    let sliceEnd = writer.bytesWritten + SLICE_BYTES;
    const writeCell = (key: unknown, value: unknown) => {
      writer.write(key);
      writer.write(value);
    };
    for (;;) {
      // Small steps, so that large values are noticed before they add up.
      let finished = false;
      for (let done = 0; done < SLICE_CELLS && writer.bytesWritten < sliceEnd && !finished; done += STEP_CELLS) {
        finished = cells.visit(walk, STEP_CELLS, writeCell);
      }
      if (finished) break;
      await this.pause(signal);
      sliceEnd = writer.bytesWritten + SLICE_BYTES;
    }
    // In the same turn as the last cell: a change from here on must not be saved for a view that is complete.
    cells.drop(view);
    writer.writeEnd();
  }

  private async pause(signal: AbortSignal): Promise<void> {
    await this.deps.yieldNow();
    signal.throwIfAborted();
    if (this.phase === 'ended') throw new MillraceError('CLOSED', 'the snapshot was discarded while it was written');
  }
}

const STEP_CELLS = 64;

function fixGroup(tables: readonly StateTable[], group: number, cut: number): PendingCells[] {
  const pending: PendingCells[] = [];
  for (const table of tables) {
    const cells = table.groups[group];
    const view = cells?.fix(cut);
    if (cells !== undefined && view !== undefined) pending.push({ table, cells, view });
  }
  return pending;
}
