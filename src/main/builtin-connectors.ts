import type { BuiltinConnectors } from '../api/builtin-connectors.ts';
import { collectionSource } from '../connectors/collection-source.ts';
import { printSink } from '../connectors/print-sink.ts';
import { textFileSource } from '../connectors/text-file-source.ts';

/** Behind `fromElements`, `readTextFile` and `print`. */
export const builtinConnectors: BuiltinConnectors = {
  collection: (items) => collectionSource(items),
  textFile: (path) => textFileSource(path),
  print: (prefix) => printSink(prefix === undefined ? {} : { identifier: prefix }),
};
