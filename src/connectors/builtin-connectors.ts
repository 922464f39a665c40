import type { BuiltinConnectors } from '../api/builtin-connectors.ts';
import { collectionSource } from './collection-source.ts';
import { printSink } from './print-sink.ts';
import { textFileSource } from './text-file-source.ts';

/** What `fromElements`, `readTextFile` and `print` are made of; the library's entry installs it. */
export const BUILTIN_CONNECTORS: BuiltinConnectors = {
  collection: (items) => collectionSource(items),
  textFile: (pathOrUrl) => textFileSource(pathOrUrl),
  print: (prefix) => printSink(prefix === undefined ? {} : { identifier: prefix }),
};
