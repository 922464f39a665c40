import type { Sink } from '../../api/sink.ts';

/** A sink that takes records only when the test lets it. */
export class GatedSink<T> {
  readonly written: T[] = [];
  opened = 0;
  closed = 0;
  flushes = 0;
  failFlushes = 0;
  /** Never resolves while set. */
  hangOnOpen = false;
  hangOnClose = false;
  private room: number;
  private readonly waiting = new Set<() => void>();

  constructor(room = Number.POSITIVE_INFINITY) {
    this.room = room;
  }

  allow(more: number): void {
    this.room += more;
    for (const resume of this.waiting) resume();
    this.waiting.clear();
  }

  sink(name = 'Gated'): Sink<T> {
    return {
      name,
      createWriter: () => ({
        open: () => {
          this.opened++;
          return this.hangOnOpen ? new Promise(() => undefined) : Promise.resolve();
        },
        write: (value) => {
          this.room--;
          this.written.push(value);
        },
        ready: () => (this.room > 0 ? undefined : new Promise((resolve) => this.waiting.add(() => resolve()))),
        flush: async () => {
          this.flushes++;
          if (this.failFlushes-- > 0) throw new Error('the pipe is broken');
        },
        close: () => {
          this.closed++;
          return this.hangOnClose ? new Promise(() => undefined) : Promise.resolve();
        },
      }),
    };
  }
}
