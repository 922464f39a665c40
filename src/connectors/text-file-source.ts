import type { Collector, RuntimeContext } from '../api/functions.ts';
import type { PollStatus, Source, SourceReader } from '../api/source.ts';
import { type Clock, SystemClock } from '../kernel/clock.ts';
import { asError, InvalidArgumentError } from '../kernel/errors.ts';
import { type LineRegion, type LineRegionOptions, readLineRegions } from './line-regions.ts';
import { checkRate, createPacer, type Pacer } from './pacer.ts';
import { absolutePath, listTextFileSplits, shown, type TextFileSplit } from './text-file-splits.ts';

export interface TextFileSourceOptions {
  readonly name?: string;
  /** Also files in folders below. Default false. */
  readonly recursive?: boolean;
  /** Lines a second over all subtasks; undefined for as fast as possible. */
  readonly ratePerSecond?: number;
  /** Size of a split. Default 1 MiB; a very large input gets larger splits. */
  readonly splitBytes?: number;
  /** How much is read at once. Default 128 KiB. */
  readonly chunkBytes?: number;
  /** A longer line is an error: the file is hardly text. Default 16 MiB. */
  readonly maxLineBytes?: number;
  readonly clock?: Clock;
}

/**
 * The lines of a UTF-8 text file, or of all files in a folder (but hidden ones and those that begin with
 * `_`), without their `\n` or `\r\n`. Bounded; replayable by byte offset. Files are listed once, when the
 * job is submitted, and must be there unchanged, under the same path, for every worker.
 */
export function textFileSource(pathOrUrl: string, options: TextFileSourceOptions = {}): Source<string, TextFileSplit> {
  const path = absolutePath(pathOrUrl);
  const { recursive = false, splitBytes = 1_048_576, chunkBytes = 131_072, maxLineBytes = 16_777_216 } = options;
  for (const [name, value] of Object.entries({ splitBytes, chunkBytes, maxLineBytes })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new InvalidArgumentError(`${name} is ${value}; it must be a positive number of bytes`);
    }
  }
  checkRate(options.ratePerSecond);
  return {
    name: options.name ?? `Text File Source: ${shown(pathOrUrl)}`,
    boundedness: 'BOUNDED',
    enumerateSplits: ({ parallelism }) => listTextFileSplits({ path, recursive, splitBytes }, parallelism),
    createReader: (context: RuntimeContext) =>
      new TextFileReader(
        { chunkBytes, maxLineBytes },
        createPacer(options.clock ?? new SystemClock(), options.ratePerSecond, context.parallelism),
      ),
  };
}

/** Regions read but not yet polled: one being emitted from, and these. */
const READ_AHEAD = 2;

/** `undefined` marks the end of a split. */
type ReadAhead = LineRegion | undefined;

class TextFileReader implements SourceReader<string, TextFileSplit> {
  /** Not yet exhausted; the first is the one being emitted. */
  private splits: TextFileSplit[] = [];
  private current: RegionLines | undefined;
  private readonly ahead: ReadAhead[] = [];
  private failure: Error | undefined;
  private reading: Promise<void> = Promise.resolve();
  private closed = false;
  /** Wakes the reading loop when there is room, and the task when there is a region. */
  private readonly room = new Signal();
  private readonly arrived = new Signal();

  constructor(
    private readonly options: LineRegionOptions,
    private readonly pacer: Pacer | undefined,
  ) {}

  async open(splits: readonly TextFileSplit[]): Promise<void> {
    this.splits = splits.filter(({ position, to }) => position === undefined || position < to);
    this.reading = this.readAll([...this.splits]);
  }

  poll(out: Collector<string>, maxRecords: number): PollStatus {
    const allowed = this.pacer?.allowed(maxRecords) ?? maxRecords;
    let left = allowed;
    while (left > 0 && this.advance()) {
      if (this.current !== undefined) left -= this.current.emit(out, left);
    }
    this.pacer?.used(allowed - left);
    // Notices the end with the last line, not one poll later.
    this.advance();
    if (this.splits.length === 0) return 'end';
    return left === 0 && allowed === maxRecords ? 'more' : 'wait';
  }

  async available(): Promise<void> {
    if (this.closed || this.failure !== undefined) return;
    if (this.current === undefined && this.ahead.length === 0) await this.arrived.wait();
    else await this.pacer?.available();
  }

  snapshot(): readonly TextFileSplit[] {
    const { current } = this;
    if (current === undefined) return [...this.splits];
    return this.splits.map((split, i) => (i === 0 ? { ...split, position: current.position() } : split));
  }

  async close(): Promise<void> {
    this.closed = true;
    this.pacer?.close();
    this.room.notify();
    this.arrived.notify();
    await this.reading;
  }

  /** Makes a line available in `current`; false when nothing is at hand. Throws what reading threw, in its turn. */
  private advance(): boolean {
    while (this.current === undefined || this.current.exhausted) {
      if (this.current !== undefined) this.moveTo(this.current.position());
      if (this.splits.length === 0) return false;
      if (this.ahead.length === 0) {
        if (this.failure !== undefined) throw this.failure;
        return false;
      }
      const region = this.ahead.shift();
      this.room.notify();
      if (region === undefined) this.splits.shift();
      else this.current = new RegionLines(region);
    }
    return true;
  }

  private moveTo(position: number): void {
    this.current = undefined;
    const [split] = this.splits;
    if (split !== undefined) this.splits[0] = { ...split, position };
  }

  /** Owned by `reading`; its failure is kept for the next poll, so it never rejects. */
  private async readAll(splits: readonly TextFileSplit[]): Promise<void> {
    try {
      for (const split of splits) {
        for await (const region of readLineRegions(split, this.options)) {
          await this.deliver(region);
          if (this.closed) return;
        }
        await this.deliver(undefined);
        if (this.closed) return;
      }
    } catch (error) {
      this.failure = asError(error);
      this.arrived.notify();
    }
  }

  private async deliver(region: ReadAhead): Promise<void> {
    this.ahead.push(region);
    this.arrived.notify();
    while (this.ahead.length >= READ_AHEAD && !this.closed) await this.room.wait();
  }
}

/** The lines of one region, and how far they were emitted. */
class RegionLines {
  private readonly lines: string[];
  private next = 0;

  constructor(private readonly region: LineRegion) {
    // Decoding and splitting a region at once is several times faster than line by line.
    const text = region.bytes.toString('utf8');
    this.lines = text.split('\n');
    if (this.lines.at(-1) === '') this.lines.pop();
    if (text.includes('\r')) this.lines = this.lines.map(withoutCarriageReturn);
    // A byte order mark is not part of the first line.
    if (region.start === 0 && this.lines[0]?.startsWith('\ufeff')) this.lines[0] = this.lines[0].slice(1);
  }

  get exhausted(): boolean {
    return this.next === this.lines.length;
  }

  emit(out: Collector<string>, max: number): number {
    const end = Math.min(this.lines.length, this.next + max);
    const emitted = end - this.next;
    while (this.next < end) out.collect(this.lines[this.next++] as string);
    return emitted;
  }

  /**
   * The byte where the next line begins. Found in the bytes and not by the lengths of the lines, because
   * malformed UTF-8 does not decode to as many bytes as it had. Only snapshots pay for it.
   */
  position(): number {
    const { start, bytes } = this.region;
    if (this.exhausted) return start + bytes.length;
    let at = 0;
    for (let line = 0; line < this.next; line++) at = bytes.indexOf(0x0a, at) + 1;
    return start + at;
  }
}

function withoutCarriageReturn(line: string): string {
  return line.charCodeAt(line.length - 1) === 0x0d ? line.slice(0, -1) : line;
}

/** Lets one party wait for the other; a notice without a waiter is forgotten, so check the condition first. */
class Signal {
  private waiters: (() => void)[] = [];

  wait(): Promise<void> {
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  notify(): void {
    for (const wake of this.waiters.splice(0)) wake();
  }
}
