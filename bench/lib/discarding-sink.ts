import type { Sink } from '../../src/api/sink.ts';

/** Takes everything and keeps nothing. */
export function discardingSink(): Sink<unknown> {
  return {
    name: 'Discard',
    createWriter: () => ({
      open: () => Promise.resolve(),
      write: () => undefined,
      ready: () => undefined,
      flush: () => Promise.resolve(),
      close: () => Promise.resolve(),
    }),
  };
}
