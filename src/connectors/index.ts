export { type CollectionSplit, collectionSource } from './collection-source.ts';
export { type PrintSinkOptions, printSink } from './print-sink.ts';
