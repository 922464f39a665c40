export { BUILTIN_CONNECTORS } from './builtin-connectors.ts';
export { type CollectionSplit, collectionSource } from './collection-source.ts';
export { type DataGenOptions, type DataGenSplit, dataGen } from './datagen-source.ts';
export { type PrintSinkOptions, printSink } from './print-sink.ts';
export { type TextFileSourceOptions, textFileSource } from './text-file-source.ts';
export type { TextFileSplit } from './text-file-splits.ts';
export { FileSink, type FileSinkOptions, fileSink } from './file-sink.ts';
export type { FileCommittable } from './part-files.ts';
