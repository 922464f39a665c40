import { createHash } from 'node:crypto';
import { assert } from '../kernel/assert.ts';
import { CorruptError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { KeyedStateHandle } from '../contracts/state-handles.ts';
import { type CanonicalKey, keyGroupForCanonical } from './key-group-hash.ts';
import { damaged, decodeSection, type SectionPlace } from './section.ts';
import type { StateKind, StateTables } from './state-table.ts';
import { END, ValueReader } from './value-codec.ts';

export interface KeyedRestore {
  readonly handles: readonly KeyedStateHandle[];
  readonly range: KeyGroupRange;
  readonly maxParallelism: number;
  readonly into: StateTables;
  readonly signal: AbortSignal;
}

/** Neighbouring sections are read together up to this size. */
const READ_BYTES_MAX = 8 * 1024 * 1024;

/**
 * Reads the sections of the owned key groups, and no others, into `into`. Each section is verified by
 * its own checksum; an object that is read from end to end also by its digest.
 */
export async function restoreKeyedState(
  deps: { readonly objects: ObjectStore; readonly yieldNow: () => Promise<void> },
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
        if (section.length > 0) await restoreSection(section, group, handle, restore);
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
  objects: ObjectStore,
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
  { into, range, maxParallelism }: KeyedRestore,
): Promise<void> {
  const where: SectionPlace = {
    object: handle.kind === 'object' ? handle.key : 'inline state',
    section: `key group ${keyGroup}`,
    keyGroup,
  };
  const reader = new ValueReader(await decodeSection(section, where));
  try {
    while (!reader.done) {
      const name = reader.read();
      const kind = reader.read();
      reader.read(); // Properties: none are defined yet.
      if (typeof name !== 'string') throw damaged(where, 'a state in it has no name');
      if (kind !== 'value') throw newerKind(where, name, kind);
      const cells = into.table(name, kind satisfies StateKind).groups[keyGroup - range.first];
      assert(cells !== undefined, 'only owned key groups are read');
      for (let key = reader.readOrEnd(), first = true; key !== END; key = reader.readOrEnd(), first = false) {
        if (!isCanonicalKey(key)) throw damaged(where, 'a key in it is not a key');
        // One look per state tells whether keys were dealt out by the same rule.
        if (first && keyGroupForCanonical(key, maxParallelism) !== keyGroup) throw otherRule(where);
        cells.insert(key, reader.read());
      }
    }
  } catch (error) {
    // The codec knows what is wrong but not where.
    if (isMillraceError(error, 'CORRUPT') && !error.message.includes(where.object)) throw damaged(where, error.message);
    throw error;
  }
}

function isCanonicalKey(key: unknown): key is CanonicalKey {
  return typeof key === 'string' || typeof key === 'number' || typeof key === 'bigint' || typeof key === 'boolean';
}

function otherRule(where: SectionPlace): MillraceError {
  return new MillraceError(
    'INVALID_ARGUMENT',
    `${where.section} of ${where.object} holds keys of another group: it was written with another maxParallelism`,
    { hint: 'set the maxParallelism that the checkpoint was taken with' },
  );
}

function newerKind(where: SectionPlace, name: string, kind: unknown): MillraceError {
  return new MillraceError(
    'UNSUPPORTED_VERSION',
    `state '${name}' in ${where.section} of ${where.object} is of the unknown kind '${String(kind)}'`,
    { hint: 'restore with the version of millrace that wrote it, or a newer one' },
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
