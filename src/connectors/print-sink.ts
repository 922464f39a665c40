import type { Writable } from 'node:stream';
import { inspect } from 'node:util';
import type { RuntimeContext } from '../api/functions.ts';
import type { Sink, SinkWriter } from '../api/sink.ts';
import { SharedOutput } from './shared-output.ts';

export interface PrintSinkOptions {
  readonly name?: string;
  /** Put before each line, so that two print sinks can be told apart. */
  readonly identifier?: string;
  /** Default: standard output of the process that runs the subtask. */
  readonly stream?: Writable;
}

/**
 * Prints each record as one line, with the number of the subtask (from 1) before it when there are
 * several: `2> hello`. With an identifier: `words:2> hello`, or `words> hello`.
 */
export function printSink<T>(options: PrintSinkOptions = {}): Sink<T> {
  return {
    name: options.name ?? 'Print to Std. Out',
    createWriter: (context) => new PrintWriter<T>(options.stream ?? process.stdout, linePrefix(options, context)),
  };
}

class PrintWriter<T> implements SinkWriter<T> {
  private output: SharedOutput | undefined;

  constructor(
    private readonly stream: Writable,
    private readonly prefix: string,
  ) {}

  async open(): Promise<void> {
    this.output ??= SharedOutput.acquire(this.stream);
  }

  write(value: T): void {
    this.output?.writeLine(this.prefix + printable(value));
  }

  ready(): Promise<void> | undefined {
    return this.output?.ready();
  }

  async flush(): Promise<void> {
    await this.output?.flush();
  }

  async close(): Promise<void> {
    const output = this.output;
    this.output = undefined;
    output?.release();
  }
}

function linePrefix({ identifier = '' }: PrintSinkOptions, context: RuntimeContext): string {
  const parts = identifier === '' ? [] : [identifier];
  if (context.parallelism > 1) parts.push(String(context.subtaskIndex + 1));
  return parts.length === 0 ? '' : `${parts.join(':')}> `;
}

const READABLE = {
  depth: 8,
  compact: true,
  breakLength: Number.POSITIVE_INFINITY,
  maxArrayLength: null,
  maxStringLength: null,
} as const;

/** Strings as they are, everything else on one line as Node's console shows it. */
function printable(value: unknown): string {
  return typeof value === 'string' ? value : inspect(value, READABLE);
}
