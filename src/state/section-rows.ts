import { CorruptError, MillraceError } from '../kernel/errors.ts';
import { isStateKind, layoutOf, type RowSink, type StateKind } from './cells.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { ValueWriter } from './value-codec.ts';
import { END, type ValueReader } from './value-reader.ts';

/**
 * What is inside a section: the states with something in the key group, one after the other. Of each its
 * name, its kind, a record of properties (none are defined), its rows, an end mark. Rows by kind:
 *
 *   value, reducing, aggregating   key, value
 *   list                           key, items, end mark
 *   map                            key, (map key, value) for each entry, end mark; a key may come again
 *
 * Keys and map keys are in canonical form. A value of a state with a time-to-live carries its stamp.
 */
export class SectionRows implements RowSink {
  private begun = false;
  private openKey: CanonicalKey | undefined;

  constructor(
    private readonly writer: ValueWriter,
    private readonly state: { readonly name: string; readonly kind: StateKind },
  ) {}

  single(key: CanonicalKey, value: unknown): void {
    this.begin();
    this.writer.write(key);
    this.writer.write(value);
  }

  listStart(key: CanonicalKey): void {
    this.begin();
    this.writer.write(key);
  }

  listItem(item: unknown): void {
    this.writer.write(item);
  }

  listEnd(): void {
    this.writer.writeEnd();
  }

  mapEntry(key: CanonicalKey, mapKey: CanonicalKey, value: unknown): void {
    const { writer } = this;
    if (key !== this.openKey) {
      this.begin();
      if (this.openKey !== undefined) writer.writeEnd();
      writer.write(key);
      this.openKey = key;
    }
    writer.write(mapKey);
    writer.write(value);
  }

  /** After the last row. */
  end(): void {
    if (!this.begun) return;
    if (this.openKey !== undefined) this.writer.writeEnd();
    this.writer.writeEnd();
  }

  /** The head comes with the first row: a state without rows leaves nothing. */
  private begin(): void {
    if (this.begun) return;
    this.begun = true;
    this.writer.write(this.state.name);
    this.writer.write(this.state.kind);
    this.writer.write({});
  }
}

/** Reads the head of the next state. */
export function readStateHead(reader: ValueReader): { readonly name: string; readonly kind: StateKind } {
  const name = reader.read();
  const kind = reader.read();
  reader.read(); // Properties: none are defined yet.
  if (typeof name !== 'string') throw new CorruptError('a state in it has no name');
  if (!isStateKind(kind)) {
    throw new MillraceError('UNSUPPORTED_VERSION', `state '${name}' is of the unknown kind '${String(kind)}'`, {
      hint: 'restore with the version of millrace that wrote it, or a newer one',
    });
  }
  return { name, kind };
}

/**
 * Reads the next row, or one entry's worth of it, into `sink`; false at the end of the state. `state`
 * carries the key of a map from one call to the next.
 */
export class RowReader {
  private openMap: CanonicalKey | undefined;

  constructor(
    private readonly reader: ValueReader,
    private readonly kind: StateKind,
  ) {}

  /** About `rowsMax` rows. Returns false after the last. */
  read(rowsMax: number, sink: RowSink): boolean {
    const layout = layoutOf(this.kind);
    for (let left = rowsMax; left > 0; left--) {
      if (this.openMap !== undefined) {
        this.readEntry(this.openMap, sink);
        continue;
      }
      const key = this.reader.readOrEnd();
      if (key === END) return false;
      checkKey(key);
      if (layout === 'single') sink.single(key, this.reader.read());
      else if (layout === 'map') this.openMap = key;
      else left -= this.readList(key, sink);
    }
    return true;
  }

  private readEntry(key: CanonicalKey, sink: RowSink): void {
    const mapKey = this.reader.readOrEnd();
    if (mapKey === END) {
      this.openMap = undefined;
      return;
    }
    checkKey(mapKey);
    sink.mapEntry(key, mapKey, this.reader.read());
  }

  private readList(key: CanonicalKey, sink: RowSink): number {
    let items = 0;
    sink.listStart(key);
    for (let item = this.reader.readOrEnd(); item !== END; item = this.reader.readOrEnd()) {
      sink.listItem(item);
      items++;
    }
    sink.listEnd();
    return items;
  }
}

function checkKey(key: unknown): asserts key is CanonicalKey {
  const type = typeof key;
  if (type === 'string' || type === 'number' || type === 'bigint' || type === 'boolean') return;
  throw new CorruptError('a key in it is not a key');
}
