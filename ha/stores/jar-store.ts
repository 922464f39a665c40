import type { JarView } from '../../src/contracts/views.ts';
import type { JarStore, StoredJar } from '../../src/dispatcher/ports.ts';
import { asError, CorruptError, InvalidArgumentError, NotFoundError } from '../../src/kernel/errors.ts';
import type { FencingToken, JarId } from '../../src/kernel/ids.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { Entry } from '../coordination/coordination.ts';
import { absent, unchanged } from './fenced-writer.ts';
import { hasWriteId } from './job-graph-store.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import { JAR_RECORD } from './records.ts';
import { putObject, type StoreDeps } from './store-deps.ts';
import { truncateText } from './truncate-text.ts';

/** What an uploaded file may be called. */
const NAME_CHARACTERS_MAX = 255;
const ID_NAME_CHARACTERS_MAX = 100;
/** Entries are for display: more than fit in a small record are left out, and can still be run. */
const ENTRIES_BYTES_MAX = 1_500;
const JAR_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_[A-Za-z0-9._-]{1,100}$/;

/**
 * Uploaded user bundles. A jar's pointer is written once and removed once; its id is never used
 * again, so a bundle whose jar is gone can be referenced only by jobs that were promised before.
 */
export class HaJarStore implements JarStore {
  constructor(
    private readonly deps: StoreDeps,
    private readonly random: Random,
  ) {}

  async put(name: string, bytes: Uint8Array, entries: readonly string[], token: FencingToken): Promise<JarView> {
    const { keys, writer, clock } = this.deps;
    const jarId = newJarId(name, this.random);
    if (bytes.length === 0) throw new InvalidArgumentError(`${JSON.stringify(name)} is empty`);
    const writeId = writer.newWriteId();
    const object = await putObject(this.deps, keys.jarObject(jarId, token, writeId), bytes);
    const record = {
      writeId,
      name: truncateText(name, 1_000),
      uploadedMs: clock.wallMs(),
      bundle: { objectKey: object.objectKey, digest: object.digest, bytes: object.bytes },
      entries: fitting(entries),
    };
    object.assertFresh();
    const key = keys.jar(jarId);
    const outcome = await writer.commit(token, {
      what: `storing jar ${jarId}`,
      guards: [absent(key)],
      then: [{ kind: 'put', key, value: encodeRecord(JAR_RECORD, record) }],
      isDone: (seen) => hasWriteId(seen.get(key), writeId),
    });
    if (outcome.kind === 'refused') throw new CorruptError(`the new jar id ${jarId} is taken: randomness is broken`);
    return {
      id: jarId,
      name: record.name,
      uploadedMs: record.uploadedMs,
      bytes: bytes.length,
      entries: record.entries,
    };
  }

  async list(): Promise<readonly JarView[]> {
    const { entries } = await this.deps.coordination.list(this.deps.keys.jars);
    const out: JarView[] = [];
    for (const entry of entries) {
      try {
        const { objectKey: _key, digest: _digest, ...view } = this.stored(entry);
        out.push(view);
      } catch (error) {
        // One unreadable jar must not hide the others.
        this.deps.log.error({ err: asError(error), key: entry.key }, 'jar record unreadable');
      }
    }
    return out.sort((a, b) => b.uploadedMs - a.uploadedMs || (a.id < b.id ? -1 : 1));
  }

  async get(jarId: JarId): Promise<StoredJar> {
    return this.stored(await this.entry(jarId));
  }

  async delete(jarId: JarId, token: FencingToken): Promise<void> {
    const entry = await this.entry(jarId);
    const outcome = await this.deps.writer.commit(token, {
      what: `deleting jar ${jarId}`,
      guards: [unchanged(entry.key, entry.modRevision)],
      then: [{ kind: 'delete', key: entry.key }],
      isDone: (seen) => seen.get(entry.key) === undefined,
    });
    if (outcome.kind === 'refused') throw unknownJar(jarId);
  }

  private async entry(jarId: JarId): Promise<Entry> {
    const entry = JAR_ID.test(jarId) ? await this.deps.coordination.get(this.deps.keys.jar(jarId)) : undefined;
    if (entry === undefined) throw unknownJar(jarId);
    return entry;
  }

  private stored(entry: Entry): StoredJar {
    const { name, uploadedMs, bundle, entries } = decodeRecord(JAR_RECORD, entry);
    return {
      id: entry.key.slice(this.deps.keys.jars.length) as JarId,
      name,
      uploadedMs,
      bytes: bundle.bytes,
      entries,
      objectKey: bundle.objectKey,
      digest: bundle.digest,
    };
  }
}

/** `<uuid>_<file name>`, as Flink's. @throws `INVALID_ARGUMENT` for a name that is no plain file name. */
export function newJarId(name: string, random: Random): JarId {
  const problem = problemOfName(name);
  if (problem !== undefined)
    throw new InvalidArgumentError(`the file name ${JSON.stringify(name.slice(0, 300))} ${problem}`, {
      hint: 'Upload it under a plain file name, such as word-count-1.0.mjs.',
    });
  const safe = name.normalize('NFC').replace(/[^A-Za-z0-9._-]/g, '_');
  // The ending says most about a file, so it is the front that is cut.
  return `${uuid(random)}_${safe.slice(-ID_NAME_CHARACTERS_MAX)}` as JarId;
}

function problemOfName(name: string): string | undefined {
  if (name.trim() === '') return 'is empty';
  if (name.length > NAME_CHARACTERS_MAX)
    return `has ${name.length} characters: at most ${NAME_CHARACTERS_MAX} are allowed`;
  if (/[/\\]/.test(name)) return 'contains a path';
  if (/^\.+$/.test(name)) return 'is not a file name';
  if ([...name].some((character) => character < ' ' || character === '\u007f')) return 'contains control characters';
  return undefined;
}

function uuid(random: Random): string {
  const hex = random.hex(16);
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

function fitting(entries: readonly string[]): string[] {
  const out: string[] = [];
  let bytes = 0;
  for (const entry of entries) {
    bytes += Buffer.byteLength(JSON.stringify(entry)) + 1;
    if (bytes > ENTRIES_BYTES_MAX) break;
    out.push(entry);
  }
  return out;
}

function unknownJar(jarId: JarId): NotFoundError {
  return new NotFoundError(`there is no jar ${JSON.stringify(String(jarId).slice(0, 300))}`);
}
