import { MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import type { RowSink, StateKind } from './cells.ts';
import type { LocalCopy } from './local-copies.ts';
import type { PendingSnapshot } from './ports.ts';
import type { SnapshotCompression } from '../contracts/job-graph.ts';
import { encodeSection } from './section.ts';
import { SectionRows } from './section-rows.ts';
import { handlesOf, type Section, type SnapshotPlan } from './shared-sections.ts';
import { SnapshotObject } from './snapshot-object.ts';
import { ValueWriter } from './value-codec.ts';

/** What a snapshot needs of the world. */
export interface SnapshotDeps {
  readonly objects: ObjectStore;
  /** Lets waiting work run: called between slices of serialisation. */
  readonly yieldNow: () => Promise<void>;
  readonly memoryThresholdBytes: number;
  readonly compression: SnapshotCompression;
  /** Rows serialised between two pauses, at most. */
  readonly sliceRows: number;
}

/** One state in one key group, as of the cut. */
export interface StateView {
  readonly name: string;
  readonly kind: StateKind;
  /**
   * Whether it may have changed after an older cut; undefined when `cellsMax` were looked at and more are
   * left. Never wrongly false.
   */
  changedSince(cut: number, cellsMax: number): boolean | undefined;
  /** Hands out about `rowsMax` rows; true after the last, and then the view is dropped. */
  visit(rowsMax: number, sink: RowSink): boolean;
  /** Idempotent. */
  drop(): void;
}

/** All states of an operator as of one cut. */
export interface StateViews {
  /** By key group, counted from the first of the range; at least the states with something in the group. */
  readonly groups: readonly (readonly StateView[])[];
  /** Whether a cell of the key group was removed after an older cut: states without any left are not in `groups`. */
  removedSince(group: number, cut: number): boolean;
  /** Drops what is left. */
  close(): void;
}

/**
 * A slice of serialisation ends after this many rows or bytes, whichever comes first: one to three
 * milliseconds, so the longest pause does not depend on how large a key group is.
 */
export const SLICE_ROWS = 4_096;
const SLICE_BYTES = 512 * 1024;
/** Small steps, so that large values are noticed before they add up. */
const STEP_ROWS = 64;
/** Looking costs far less than writing. */
const SLICE_LOOKS = 100_000;

/** Where the snapshot is copied to, besides. */
export interface LocalTarget {
  readonly copy?: LocalCopy | undefined;
  /** Keeps the copies of objects that it refers to. */
  readonly keep?: ((objectKeys: Iterable<string>) => Promise<void>) | undefined;
}

function objectsOf(sections: readonly (Section | undefined)[], except: string): Set<string> {
  const keys = new Set<string>();
  for (const section of sections) if (section?.handle.kind === 'object') keys.add(section.handle.key);
  keys.delete(except);
  return keys;
}

/** Keyed state as of one cut, written one key group after the other while processing goes on. */
export class KeyedSnapshot implements PendingSnapshot<KeyedStateHandle> {
  private phase: 'fixed' | 'writing' | 'ended' = 'fixed';

  constructor(
    private readonly deps: SnapshotDeps,
    private readonly range: KeyGroupRange,
    private readonly objectKey: string,
    private readonly views: StateViews,
    /** Undefined: everything is written. */
    private readonly plan: SnapshotPlan | undefined,
    private readonly local: LocalTarget = {},
  ) {}

  async write(signal: AbortSignal): Promise<{
    readonly handles: readonly KeyedStateHandle[];
    readonly bytes: number;
    readonly writtenBytes?: number;
  }> {
    if (this.phase !== 'fixed') throw new MillraceError('CLOSED', 'the snapshot was written or discarded before');
    this.phase = 'writing';
    const object = new SnapshotObject(this.deps, this.objectKey, this.local.copy);
    try {
      return await this.writeGroups(object, signal);
    } catch (error) {
      this.plan?.failed();
      await object.abort();
      throw error;
    } finally {
      this.release();
    }
  }

  discard(): void {
    if (this.phase === 'ended') return;
    this.plan?.failed();
    this.release();
  }

  private release(): void {
    if (this.phase === 'ended') return;
    this.phase = 'ended';
    this.views.close();
  }

  private async writeGroups(object: SnapshotObject, signal: AbortSignal) {
    const writer = new ValueWriter(64 * 1024);
    const written: ({ readonly start: number; readonly end: number } | undefined)[] = [];
    const sections: (Section | undefined)[] = [];
    for (const [i, group] of this.views.groups.entries()) {
      const reference = await this.reference(i, group, signal);
      sections.push(reference);
      written.push(undefined);
      if (reference !== undefined || group.length === 0) continue;
      writer.reset();
      for (const view of group) await this.writeState(writer, view, signal);
      if (writer.bytesWritten === 0) continue;
      const start = object.size;
      await object.append(await encodeSection(writer.toBytes(), this.range.first + i, this.deps.compression), signal);
      written[i] = { start, end: object.size };
      await this.pause(signal);
    }
    if (object.size > 0) {
      const handle = await object.finish(signal);
      for (const [i, bytes] of written.entries()) {
        if (bytes !== undefined) sections[i] = { handle, ...bytes, usefulBytes: object.size };
      }
    }
    await this.local.keep?.(objectsOf(sections, this.objectKey));
    this.plan?.written(sections);
    if (sections.every((section) => section === undefined)) return { handles: [], bytes: 0 };
    return {
      handles: handlesOf(this.range, sections),
      bytes: sections.reduce((sum, section) => sum + (section === undefined ? 0 : section.end - section.start), 0),
      writtenBytes: object.size,
    };
  }

  /** The section of an earlier checkpoint that stands for the group, which then needs no writing. */
  private async reference(i: number, group: readonly StateView[], signal: AbortSignal): Promise<Section | undefined> {
    const { plan } = this;
    if (plan === undefined || group.length === 0 || plan.referable(i) === undefined) return undefined;
    if (this.views.removedSince(i, plan.baseCut)) return undefined;
    for (const view of group) {
      for (;;) {
        const changed = view.changedSince(plan.baseCut, SLICE_LOOKS);
        if (changed === true) return undefined;
        if (changed === false) break;
        await this.pause(signal);
      }
    }
    // Asked again: a cell that has changed may have gone before it was met, and another snapshot may have decided meanwhile.
    if (this.views.removedSince(i, plan.baseCut)) return undefined;
    const section = plan.referable(i);
    if (section === undefined) return undefined;
    plan.referred(i);
    for (const view of group) view.drop();
    return section;
  }

  private async writeState(writer: ValueWriter, view: StateView, signal: AbortSignal): Promise<void> {
    const { sliceRows } = this.deps;
    const stepRows = Math.min(STEP_ROWS, sliceRows);
    const rows = new SectionRows(writer, view);
    let sliceEnd = writer.bytesWritten + SLICE_BYTES;
    for (;;) {
      let finished = false;
      for (let done = 0; done < sliceRows && writer.bytesWritten < sliceEnd && !finished; done += stepRows) {
        finished = view.visit(stepRows, rows);
      }
      if (finished) break;
      await this.pause(signal);
      sliceEnd = writer.bytesWritten + SLICE_BYTES;
    }
    rows.end();
  }

  private async pause(signal: AbortSignal): Promise<void> {
    await this.deps.yieldNow();
    signal.throwIfAborted();
    if (this.phase === 'ended') throw new MillraceError('CLOSED', 'the snapshot was discarded while it was written');
  }
}
