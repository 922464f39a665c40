import { CorruptError, MillraceError } from '../kernel/errors.ts';
import type { ObjectStore } from '../contracts/object-store.ts';
import type { OperatorStateHandle, OperatorStateMode } from '../contracts/state-handles.ts';
import type { SnapshotDeps } from './keyed-snapshot.ts';
import type { JobCopies, LocalCopy } from './local-copies.ts';
import type { NamedObject } from './object-names.ts';
import type { OperatorStateBackend, PendingSnapshot, SnapshotOptions } from './ports.ts';
import { decodeSection, encodeRawSection } from './section.ts';
import { SnapshotObject } from './snapshot-object.ts';
import { ValueWriter } from './value-codec.ts';
import { ValueReader } from './value-reader.ts';

interface NamedList {
  readonly mode: OperatorStateMode;
  /** One section for each item, encoded when the list was set: items may change afterwards. */
  readonly sections: readonly Buffer[];
}

/**
 * Operator state in memory: named lists of items. A list that was restored and never updated stays
 * part of the next snapshot, so that an operator that is not asked keeps what it had.
 */
export class HeapOperatorState implements OperatorStateBackend {
  private readonly lists = new Map<string, NamedList>();
  private readonly restoredItems = new Map<string, readonly unknown[]>();

  private constructor(
    private readonly deps: SnapshotDeps,
    private readonly objectKey: (object: NamedObject) => string,
    private readonly copies: JobCopies | undefined,
  ) {}

  static async restore(
    deps: SnapshotDeps,
    objectKey: (object: NamedObject) => string,
    from: { readonly handles: readonly OperatorStateHandle[]; readonly checkpointId: number; readonly owner: string },
    signal: AbortSignal,
    copies: JobCopies | undefined,
  ): Promise<HeapOperatorState> {
    const backend = new HeapOperatorState(deps, objectKey, copies);
    const parts = from.handles.map(({ handle }) => handle);
    const local = copies?.reader(from.checkpointId, parts, deps.objects);
    try {
      for (const handle of from.handles) await backend.add(handle, local ?? deps.objects, signal);
      return backend;
    } finally {
      await local?.close(from.owner);
    }
  }

  restored<T>(name: string, mode?: OperatorStateMode): readonly T[] {
    const written = this.lists.get(name)?.mode;
    if (mode !== undefined && written !== undefined && written !== mode) {
      throw new MillraceError('CONFLICT', `operator state '${name}' was written as ${written}, not as ${mode}`, {
        hint: 'give the state that is dealt out in another way another name',
      });
    }
    return (this.restoredItems.get(name) ?? []) as readonly T[];
  }

  update<T>(name: string, mode: OperatorStateMode, items: readonly T[]): void {
    const writer = new ValueWriter(256);
    const sections = items.map((item) => {
      writer.reset();
      writer.write(item);
      return encodeRawSection(writer.toBytes());
    });
    this.lists.set(name, { mode, sections });
  }

  snapshot(checkpointId?: number, options: SnapshotOptions = {}): PendingSnapshot<OperatorStateHandle> {
    const key = this.objectKey({ ...options, checkpointId, shared: false });
    return new OperatorSnapshotWriter(this.deps, key, [...this.lists], this.copies?.begin(checkpointId, key, options));
  }

  private async add(
    { states, handle }: OperatorStateHandle,
    objects: Pick<ObjectStore, 'getRange'>,
    signal: AbortSignal,
  ): Promise<void> {
    const object = handle.kind === 'object' ? handle.key : 'inline state';
    for (const { name, mode, offsets } of states) {
      const known = this.lists.get(name);
      if (known !== undefined && known.mode !== mode) {
        throw new MillraceError(
          'CONFLICT',
          `operator state '${name}' is both ${known.mode} and ${mode} in the checkpoint`,
        );
      }
      const [start = 0] = offsets;
      const bytes = await readItems(objects, { states, handle }, offsets, signal);
      const sections: Buffer[] = [];
      const items: unknown[] = [];
      for (let i = 0; i + 1 < offsets.length; i++) {
        const section = bytes.subarray((offsets[i] ?? 0) - start, (offsets[i + 1] ?? 0) - start);
        items.push(
          new ValueReader(await decodeSection(section, { object, section: `item ${i} of state '${name}'` })).read(),
        );
        sections.push(section);
      }
      this.lists.set(name, { mode, sections: [...(known?.sections ?? []), ...sections] });
      this.restoredItems.set(name, [...(this.restoredItems.get(name) ?? []), ...items]);
    }
  }
}

async function readItems(
  objects: Pick<ObjectStore, 'getRange'>,
  { handle }: OperatorStateHandle,
  offsets: readonly number[],
  signal: AbortSignal,
): Promise<Buffer> {
  const start = offsets[0] ?? 0;
  const length = (offsets.at(-1) ?? start) - start;
  const object = handle.kind === 'object' ? handle.key : 'inline state';
  const size = handle.kind === 'object' ? handle.size : handle.bytes.length;
  if (offsets.some((offset, i) => offset < (offsets[i - 1] ?? 0)) || start + length > size) {
    throw new CorruptError(`the offsets of items in ${object} are impossible`);
  }
  if (length === 0) return Buffer.alloc(0);
  const bytes =
    handle.kind === 'inline'
      ? handle.bytes.subarray(start, start + length)
      : await objects.getRange(handle.key, start, length, signal);
  if (bytes.length !== length)
    throw new CorruptError(`${object} is damaged: it ends at ${start + bytes.length} of ${size} bytes`);
  // A copy: sections live on in the backend, while inline bytes belong to the deployment message.
  return Buffer.from(bytes);
}

class OperatorSnapshotWriter implements PendingSnapshot<OperatorStateHandle> {
  private ended = false;

  constructor(
    private readonly deps: SnapshotDeps,
    private readonly objectKey: string,
    private lists: readonly (readonly [string, NamedList])[],
    private readonly copy: LocalCopy | undefined,
  ) {}

  async write(
    signal: AbortSignal,
  ): Promise<{ readonly handles: readonly OperatorStateHandle[]; readonly bytes: number }> {
    if (this.ended) throw new MillraceError('CLOSED', 'the snapshot was written or discarded before');
    this.ended = true;
    const object = new SnapshotObject(this.deps, this.objectKey, this.copy);
    try {
      const states: OperatorStateHandle['states'] = [];
      for (const [name, { mode, sections }] of this.lists) {
        if (sections.length === 0) continue;
        const offsets = [object.size];
        for (const section of sections) {
          await object.append(section, signal);
          offsets.push(object.size);
        }
        states.push({ name, mode, offsets });
        signal.throwIfAborted();
      }
      if (states.length === 0) return { handles: [], bytes: 0 };
      return { handles: [{ states, handle: await object.finish(signal) }], bytes: object.size };
    } catch (error) {
      await object.abort();
      throw error;
    } finally {
      this.lists = [];
    }
  }

  discard(): void {
    this.ended = true;
    this.lists = [];
  }
}
