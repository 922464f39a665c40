/**
 * What one flatMap of a compiled chain holds while it is paused. The generated code reads and writes
 * the fields itself; a class, so that all of them have one hidden class.
 */
export class HeldElements {
  /** Something is held: records that come meanwhile must wait. */
  paused = false;
  /** The record whose elements are still to be emitted; meaningful while `results` or `iterator` is set. */
  record: unknown;
  /** The rest of an array begins at `next`. */
  results: readonly unknown[] | undefined;
  next = 0;
  iterator: Iterator<unknown> | undefined;
  /** Records that came while paused: what is left of one poll of a source, hence bounded. */
  readonly waiting: unknown[] = [];

  keep(record: unknown): void {
    this.waiting.push(record);
  }

  holdArray(record: unknown, results: readonly unknown[], next: number): void {
    this.record = record;
    this.results = results;
    this.next = next;
    this.paused = true;
  }

  holdIterator(record: unknown, iterator: Iterator<unknown>): void {
    this.record = record;
    this.iterator = iterator;
    this.paused = true;
  }

  get holding(): boolean {
    return this.results !== undefined || this.iterator !== undefined;
  }

  /** Lets go of the record's elements, which the caller goes on with. */
  release(): void {
    this.record = undefined;
    this.results = undefined;
    this.iterator = undefined;
  }

  /** After a resumption. */
  settle(): void {
    this.paused = this.holding || this.waiting.length > 0;
  }

  close(): void {
    const { iterator } = this;
    this.release();
    this.waiting.length = 0;
    this.paused = false;
    iterator?.return?.();
  }
}
