import { MillraceError } from '../kernel/errors.ts';
import type { Sink } from './sink.ts';
import type { Source } from './source.ts';

/**
 * The connectors behind `fromElements`, `readTextFile` and `print`. They live in the connectors room,
 * which is built on this one; so the library's entry hands them in, once.
 */
export interface BuiltinConnectors {
  collection<T>(items: readonly T[]): Source<T>;
  /** A file or folder, one record per line. */
  textFile(pathOrUrl: string): Source<string>;
  print<T>(prefix: string | undefined): Sink<T>;
}

let installed: BuiltinConnectors | undefined;

export function installConnectors(connectors: BuiltinConnectors): void {
  installed = connectors;
}

export function builtinConnectors(): BuiltinConnectors {
  if (installed === undefined) {
    throw new MillraceError('INTERNAL', 'the built-in connectors are not installed', {
      hint: "Import from 'millrace', not from a file inside the package.",
    });
  }
  return installed;
}
