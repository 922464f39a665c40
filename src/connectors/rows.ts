import { InvalidArgumentError } from '../kernel/errors.ts';

/** One row without its newline. */
export type RowEncoder<T> = (value: T) => string | Uint8Array;

/** Strings as they are, everything else as JSON. */
export function encodeRow(value: unknown): string {
  if (typeof value === 'string') return value;
  let row: string | undefined;
  try {
    row = JSON.stringify(value);
  } catch (error) {
    throw notJson(value, error);
  }
  if (row === undefined) throw notJson(value, undefined);
  return row;
}

function notJson(value: unknown, cause: unknown): InvalidArgumentError {
  return new InvalidArgumentError(`a record of type ${typeof value} cannot be written as JSON`, {
    hint: 'give the sink an encoder',
    cause,
  });
}

/** How the names of parts begin and end, in a folder or in a bucket. */
export interface PartNaming {
  /** Names begin with it. Default `part`. */
  readonly partPrefix?: string;
  /** Names end with it, for example `.jsonl`. */
  readonly partSuffix?: string;
}

export function checkNaming({ partPrefix = 'part', partSuffix = '' }: PartNaming): Required<PartNaming> {
  checkNamePart('partPrefix', partPrefix, /^[A-Za-z0-9][A-Za-z0-9._-]*$/);
  checkNamePart('partSuffix', partSuffix, /^[A-Za-z0-9._-]*$/);
  return { partPrefix, partSuffix };
}

function checkNamePart(option: string, value: string, pattern: RegExp): void {
  if (pattern.test(value)) return;
  throw new InvalidArgumentError(`${option} '${value}' cannot be part of a name that readers take`, {
    hint: "use letters, digits, '.', '_' and '-'; a prefix begins with a letter or digit",
  });
}
