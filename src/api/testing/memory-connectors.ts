import type { BuiltinConnectors } from '../builtin-connectors.ts';
import type { Sink } from '../sink.ts';
import type { Source } from '../source.ts';

/** Connectors that only have a name and splits: enough to build graphs of. */

export function emptySource<T>(name: string, splits: readonly unknown[] = []): Source<T> {
  return {
    name,
    boundedness: 'BOUNDED',
    enumerateSplits: () => splits,
    createReader: () => ({
      open: () => Promise.resolve(),
      poll: () => 'end',
      available: () => Promise.resolve(),
      snapshot: () => [],
      close: () => Promise.resolve(),
    }),
  };
}

export function discardingSink<T>(name: string): Sink<T> {
  return {
    name,
    createWriter: () => ({
      open: () => Promise.resolve(),
      write() {},
      ready: () => undefined,
      flush: () => Promise.resolve(),
      close: () => Promise.resolve(),
    }),
  };
}

export const memoryConnectors: BuiltinConnectors = {
  collection: (items) => emptySource('Collection Source', [items.length]),
  textFile: (path) => emptySource(`Text File ${path}`),
  print: (prefix) => discardingSink(prefix === undefined ? 'Print' : `Print ${prefix}`),
};
