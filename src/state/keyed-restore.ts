import { createHash } from 'node:crypto';
import { assert } from '../kernel/assert.ts';
import { CorruptError, MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { type CanonicalKey, keyGroupForCanonical } from './key-group-hash.ts';
import { damaged, decodeSection, type SectionPlace } from './section.ts';
import type { RowSink, StateKind } from './cells.ts';
import { ValueReader } from './value-reader.ts';
import { readStateHead, RowReader } from './section-rows.ts';

export interface KeyedRestore {
  readonly handles: readonly KeyedStateHandle[];
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  readonly into: RestoreTarget;
  /** Called now and then; may throw to give up. */
  readonly onSlice?: () => void;
  readonly signal: AbortSignal;
}

/** Where restored rows go. */
export interface RestoreTarget {
  /** For the rows of one state in one key group; `end` comes after the last. */
  open(name: string, kind: StateKind, keyGroup: number): RowSink & { end(): void };
}

/** Neighbouring sections are read together up to this size. */
const READ_BYTES_MAX = 8 * 1024 * 1024;

/**
 * Reads the sections of the owned key groups, and no others, into `into`. Each section is verified by
 * its own checksum; an object that is read from end to end also by its digest.
 */
export async function restoreKeyedState(
  deps: { readonly objects: Pick<ObjectStore, 'getRange'>; readonly yieldNow: () => Promise<void> },
  restore: KeyedRestore,
): Promise<void> {
  for (const handle of restore.handles) {
    checkHandle(handle);
    const hash = createHash('sha256');
    let hashedBytes = 0;
    for (const batch of batches(handle, restore.range)) {
      const bytes = await readRange(deps.objects, handle, batch, restore.signal);
      hash.update(bytes);
      hashedBytes += bytes.length;
      for (let group = batch.firstGroup; group <= batch.lastGroup; group++) {
        const section = bytes.subarray(
          offsetOf(handle, group) - batch.start,
          offsetOf(handle, group + 1) - batch.start,
        );
        if (section.length > 0) await restoreSection(section, group, handle, { ...restore, yieldNow: deps.yieldNow });
        await deps.yieldNow();
        restore.signal.throwIfAborted();
      }
    }
    const { handle: stored } = handle;
    if (stored.kind === 'object' && hashedBytes === stored.size && hash.digest('hex') !== stored.digest) {
      throw new CorruptError(`${stored.key} is damaged: its digest is not the recorded one`);
    }
  }
}

interface Batch {
  readonly firstGroup: number;
  readonly lastGroup: number;
  readonly start: number;
  readonly end: number;
}

/** Runs of owned, not empty sections. */
function* batches(handle: KeyedStateHandle, range: KeyGroupRange): Generator<Batch> {
  const last = Math.min(range.last, handle.lastKeyGroup);
  let group = Math.max(range.first, handle.firstKeyGroup);
  while (group <= last) {
    const firstGroup = group;
    const start = offsetOf(handle, group);
    group++;
    while (group <= last && offsetOf(handle, group + 1) - start <= READ_BYTES_MAX) group++;
    const end = offsetOf(handle, group);
    if (end > start) yield { firstGroup, lastGroup: group - 1, start, end };
  }
}

async function readRange(
  objects: Pick<ObjectStore, 'getRange'>,
  { handle }: KeyedStateHandle,
  { start, end }: Batch,
  signal: AbortSignal,
): Promise<Buffer> {
  if (handle.kind === 'inline') return Buffer.from(handle.bytes.buffer, handle.bytes.byteOffset + start, end - start);
  const bytes = await objects.getRange(handle.key, start, end - start, signal);
  if (bytes.length !== end - start) {
    throw new CorruptError(`${handle.key} is damaged: it ends at ${start + bytes.length} of ${handle.size} bytes`);
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

async function restoreSection(
  section: Buffer,
  keyGroup: number,
  { handle }: KeyedStateHandle,
  restore: KeyedRestore & { readonly yieldNow: () => Promise<void> },
): Promise<void> {
  const where: SectionPlace = {
    object: handle.kind === 'object' ? handle.key : 'inline state',
    section: `key group ${keyGroup}`,
    keyGroup,
  };
  const reader = new ValueReader(await decodeSection(section, where));
  try {
    while (!reader.done) await restoreState(reader, keyGroup, where, restore);
  } catch (error) {
    // The codec knows what is wrong but not where.
    if (error instanceof MillraceError && !error.message.includes(where.object)) throw placed(error, where);
    throw error;
  }
}

async function restoreState(
  reader: ValueReader,
  keyGroup: number,
  where: SectionPlace,
  { into, maxParallelism, yieldNow, onSlice, signal }: KeyedRestore & { readonly yieldNow: () => Promise<void> },
): Promise<void> {
  const { name, kind } = readStateHead(reader);
  const rows = new RowReader(reader, kind);
  const target = into.open(name, kind, keyGroup);
  const sink = new CheckedRows(target, (key) => {
    if (keyGroupForCanonical(key, maxParallelism) !== keyGroup) throw otherRule(where);
  });
  while (rows.read(SLICE_ROWS, sink)) {
    onSlice?.();
    await yieldNow();
    signal.throwIfAborted();
  }
  target.end();
}

/** Rows restored at a time. */
const SLICE_ROWS = 4_096;

/** One look per state and key group tells whether keys were dealt out by the same rule. */
class CheckedRows implements RowSink {
  private checked = false;

  constructor(
    private readonly rows: RowSink,
    private readonly check: (key: CanonicalKey) => void,
  ) {}

  single(key: CanonicalKey, value: unknown): void {
    if (!this.checked) this.look(key);
    this.rows.single(key, value);
  }

  listStart(key: CanonicalKey): void {
    if (!this.checked) this.look(key);
    this.rows.listStart(key);
  }

  listItem(item: unknown): void {
    this.rows.listItem(item);
  }

  listEnd(): void {
    this.rows.listEnd();
  }

  mapEntry(key: CanonicalKey, mapKey: CanonicalKey, value: unknown): void {
    if (!this.checked) this.look(key);
    this.rows.mapEntry(key, mapKey, value);
  }

  private look(key: CanonicalKey): void {
    this.check(key);
    this.checked = true;
  }
}

/** Says in which section of which object it was. */
function placed(error: MillraceError, where: SectionPlace): MillraceError {
  if (error.code === 'CORRUPT') return damaged(where, error.message, error);
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  return new MillraceError(error.code, `${where.section} of ${where.object}: ${error.message}`, {
    ...hint,
    cause: error,
  });
}

function otherRule(where: SectionPlace): MillraceError {
  return new MillraceError(
    'INVALID_ARGUMENT',
    `${where.section} of ${where.object} holds keys of another group: it was written with another maxParallelism`,
    { hint: 'set the maxParallelism that the checkpoint was taken with' },
  );
}

/** Start of a key group's section; for the group after the last, the end. */
function offsetOf(handle: KeyedStateHandle, keyGroup: number): number {
  const offset = handle.offsets[keyGroup - handle.firstKeyGroup];
  assert(offset !== undefined, 'offsets were checked');
  return offset;
}

function checkHandle({ firstKeyGroup, lastKeyGroup, offsets, handle }: KeyedStateHandle): void {
  const size = handle.kind === 'inline' ? handle.bytes.length : handle.size;
  const rising = offsets.every((offset, i) => offset >= (offsets[i - 1] ?? 0));
  if (offsets.length !== lastKeyGroup - firstKeyGroup + 2 || !rising || (offsets.at(-1) ?? 0) > size) {
    const object = handle.kind === 'object' ? handle.key : 'inline state';
    throw new CorruptError(`the offsets of key groups ${firstKeyGroup}..${lastKeyGroup} in ${object} are impossible`);
  }
}
