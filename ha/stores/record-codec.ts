import type { z } from 'zod';
import { CorruptError, MillraceError } from '../../src/kernel/errors.ts';
import type { Entry } from '../coordination/coordination.ts';

/** The form of every record in coordination: JSON with a version, at most this large. */
export const MAX_RECORD_BYTES = 4 * 1024;

/**
 * One kind of record: how it is written and read. `v` grows when a reader of the old form would
 * misunderstand the new one; fields that old readers may ignore are added without that.
 */
export interface RecordType<T> {
  readonly name: string;
  readonly version: number;
  readonly schema: z.ZodType<T>;
}

export function encodeRecord<T>(type: RecordType<T>, value: T): string {
  const text = JSON.stringify({ v: type.version, ...value });
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_RECORD_BYTES)
    throw new MillraceError(
      'TOO_LARGE',
      `${type.name} record of ${bytes} bytes: at most ${MAX_RECORD_BYTES} are allowed`,
    );
  return text;
}

/** @throws `CORRUPT` when the record cannot be read, `UNSUPPORTED_VERSION` when it is newer than this program. */
export function decodeRecord<T>(type: RecordType<T>, entry: Entry): T {
  const what = `${type.name} record ${entry.key}`;
  let value: unknown;
  try {
    value = JSON.parse(entry.value);
  } catch (cause) {
    throw new CorruptError(`${what} is not JSON`, { cause });
  }
  checkVersion(what, type.version, value);
  const parsed = type.schema.safeParse(value);
  if (!parsed.success) throw new CorruptError(`${what} does not have the expected form`, { cause: parsed.error });
  return parsed.data;
}

/** A newer version is told from damage: the remedy is an upgrade, not a repair. */
export function checkVersion(what: string, known: number, value: unknown): void {
  const version: unknown = value !== null && typeof value === 'object' && 'v' in value ? value.v : undefined;
  if (typeof version !== 'number' || !Number.isInteger(version) || version < 1)
    throw new CorruptError(`${what} carries no version`);
  if (version > known)
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `${what} has version ${version}; this program reads up to ${known}`,
      {
        hint: 'It was written by a newer millrace: upgrade this master.',
      },
    );
}
