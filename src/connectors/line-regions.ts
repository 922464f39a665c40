import { type FileHandle, open } from 'node:fs/promises';
import { CorruptError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import { fileError, type TextFileSplit } from './text-file-splits.ts';

const NEWLINE = 0x0a;
/** Past the end of a split only the rest of its last line is wanted. */
const TAIL_BYTES = 4_096;

/** Whole lines: ends after a newline, or with the file. */
export interface LineRegion {
  readonly start: number;
  readonly bytes: Buffer;
}

export interface LineRegionOptions {
  readonly chunkBytes: number;
  readonly maxLineBytes: number;
}

/**
 * The lines of one split, in regions of about `chunkBytes`.
 *
 * A line belongs to the split in which it begins. So a split that does not begin its file looks for the
 * first newline from the byte before its own, and reads past its end up to the first newline from its
 * last byte on. Regions end at newlines, a byte that is never part of a longer UTF-8 sequence, so
 * decoding a region never cuts a character.
 */
export async function* readLineRegions(split: TextFileSplit, options: LineRegionOptions): AsyncGenerator<LineRegion> {
  let file: FileHandle | undefined;
  try {
    file = await open(split.path);
    await checkUnchanged(file, split);
    yield* regionsOf(file, split, options);
  } catch (error) {
    throw isMillraceError(error) ? error : fileError(split.path, error);
  } finally {
    await file?.close();
  }
}

async function* regionsOf(
  file: FileHandle,
  split: TextFileSplit,
  { chunkBytes, maxLineBytes }: LineRegionOptions,
): AsyncGenerator<LineRegion> {
  let start = split.position ?? (await firstLineStart(file, split, chunkBytes));
  let carry: Buffer = Buffer.alloc(0);
  while (start < split.to) {
    const bytes = await readMore(file, split, { start, carry, chunkBytes });
    const end = start + bytes.length;
    // The newline that ends the last line of the split, if it is in sight.
    const last = end >= split.to ? bytes.indexOf(NEWLINE, split.to - 1 - start) : -1;
    if (last >= 0 || end === split.fileBytes) {
      yield { start, bytes: last >= 0 ? bytes.subarray(0, last + 1) : bytes };
      return;
    }
    const whole = bytes.lastIndexOf(NEWLINE) + 1;
    if (whole > 0) yield { start, bytes: bytes.subarray(0, whole) };
    start += whole;
    carry = bytes.subarray(whole);
    if (carry.length > maxLineBytes) throw lineTooLong(split, start, maxLineBytes);
  }
}

/** Where the first line that begins at `from` or later begins; past the split when none begins in it. */
async function firstLineStart(file: FileHandle, split: TextFileSplit, chunkBytes: number): Promise<number> {
  if (split.from === 0) return 0;
  let start = split.from - 1;
  while (start < split.to) {
    const bytes = await readMore(file, split, { start, carry: Buffer.alloc(0), chunkBytes });
    const newline = bytes.indexOf(NEWLINE);
    if (newline >= 0) return start + newline + 1;
    start += bytes.length;
  }
  return split.to;
}

/** `carry`, which begins at `start`, and what follows it in the file. */
async function readMore(
  file: FileHandle,
  split: TextFileSplit,
  { start, carry, chunkBytes }: { readonly start: number; readonly carry: Buffer; readonly chunkBytes: number },
): Promise<Buffer> {
  const at = start + carry.length;
  const wanted = Math.min(chunkBytes, Math.max(split.to - at, 0) + TAIL_BYTES, split.fileBytes - at);
  const bytes = Buffer.allocUnsafe(carry.length + wanted);
  bytes.set(carry);
  const { bytesRead } = await file.read(bytes, carry.length, wanted, at);
  if (bytesRead === 0) throw changed(split, at);
  return bytes.subarray(0, carry.length + bytesRead);
}

async function checkUnchanged(file: FileHandle, split: TextFileSplit): Promise<void> {
  const { size } = await file.stat();
  if (size !== split.fileBytes) throw changed(split, size);
}

function changed({ path, fileBytes }: TextFileSplit, size: number): CorruptError {
  return new CorruptError(
    `${path} has ${size} bytes, but had ${fileBytes} when the job was submitted: it was changed meanwhile`,
    {
      hint: 'input files must not change while a job reads them: a restart could not replay them; submit the job again',
    },
  );
}

function lineTooLong({ path }: TextFileSplit, start: number, maxLineBytes: number): MillraceError {
  return new MillraceError('TOO_LARGE', `the line at byte ${start} of ${path} is longer than ${maxLineBytes} bytes`, {
    hint: 'is it a text file? Otherwise raise maxLineBytes',
  });
}
