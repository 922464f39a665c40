import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';

/** Refuses what cannot be an ES module at a glance, with a better reason than a parser's. */
export function checkBundleBytes(name: string, bytes: Uint8Array): void {
  if (bytes.byteLength === 0) {
    throw new InvalidArgumentError(`${name} is empty`, { hint: 'Upload the job as one ES module file.' });
  }
  const [b0, b1, b2, b3] = bytes;
  if (b0 === 0x50 && b1 === 0x4b && b2 === 0x03 && b3 === 0x04) {
    throw new MillraceError('PROGRAM', `${name} is a zip archive (a Java jar?), not an ES module`, {
      hint: 'A job is one JavaScript file: an ES module with its dependencies packed in.',
    });
  }
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new MillraceError('PROGRAM', `${name} is not an ES module: it is not text in UTF-8`, { cause: error });
  }
}
