import { InvalidArgumentError } from '../../src/kernel/errors.ts';

const KEY_MAX = 512;
/** File systems take names of up to 255 bytes. */
const PART_MAX = 200;
const ALLOWED = /^[A-Za-z0-9._/-]*$/;

/** One rule for all stores: what fits one fits all, and no key climbs out of its directory. */
export function checkObjectKey(key: string): void {
  if (key === '') throw new InvalidArgumentError('object key is empty');
  checkObjectPrefix(key);
  if (key.split('/').some((part) => part === ''))
    throw new InvalidArgumentError(`object key ${JSON.stringify(key)} begins or ends with / or has an empty part`);
}

/** A prefix may end anywhere, also inside a part; `''` means everything. */
export function checkObjectPrefix(prefix: string): void {
  if (prefix.length > KEY_MAX)
    throw new InvalidArgumentError(`object key of ${prefix.length} characters: at most ${KEY_MAX} are allowed`);
  if (!ALLOWED.test(prefix))
    throw new InvalidArgumentError(`object key ${JSON.stringify(prefix)}: only A-Z a-z 0-9 . _ / - are allowed`);
  for (const part of prefix.split('/')) {
    if (part === '.' || part === '..')
      throw new InvalidArgumentError(`object key ${JSON.stringify(prefix)} has a part . or ..`);
    if (part.length > PART_MAX)
      throw new InvalidArgumentError(
        `object key with a part of ${part.length} characters: at most ${PART_MAX} between slashes`,
      );
  }
}

export function checkRange(offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < 0)
    throw new InvalidArgumentError(`range of ${length} bytes from ${offset}: both must be whole and not negative`);
}
